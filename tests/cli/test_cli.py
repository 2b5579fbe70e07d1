"""The command line: quick help, mistakes told in one clear line, programs and chats that run."""

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sapwood.runtime.chat import chat_format
from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.protocol import Ids, SamplingParams, Text
from sapwood.runtime.scripted import TOY_CHATML, TOY_INFO, Reply, ScriptedClient, encode_prompt
from sapwood.server.cli import COMMANDS, main
from sapwood.server.commands import chat, serve
from sapwood.server.commands.doctor import lines
from sapwood.server.conversation import Conversation

PROGRAMS = """
import sapwood as sw
from sapwood.runtime.scripted import ScriptedClient

sw.set_default_backend(ScriptedClient(lambda request: "green"))

@sw.function
def colour(s, of_what, how_many: int = 1, seed=None):
    "Tell a colour."
    s += f"{how_many} {of_what} {type(of_what).__name__} {seed} " + sw.gen("answer")
    s["count"] = how_many

@sw.function
def broken(s):
    s += sw.gen("x")
    raise sw.InvalidRequest("no colour today")
"""


@pytest.fixture
def programs(tmp_path: Path) -> str:
    path = tmp_path / "colours.py"
    path.write_text(PROGRAMS)
    return str(path)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from sapwood.server.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'fastapi', 'uvicorn', 'transformers', 'numpy', 'jinja2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert all(name in answer.stdout for name in COMMANDS)


def test_the_module_is_the_command() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "sapwood", "--version"], capture_output=True, text=True
    )
    assert answer.returncode == 0 and answer.stdout.startswith("sapwood ")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["serv"], 2, "did you mean 'serve'?"),
        (["xyzzy"], 2, "the commands are serve, run"),
        ([], 2, "which command?"),
        (["run", "nowhere.py:f"], 1, "nowhere.py: no such file"),
        (["serve", "--context-length", "0"], 1, "context_length: 0 is not a positive integer"),
        (["serve", "--port", "70000"], 1, "cannot listen on 127.0.0.1:70000"),
        (["serve", "--host", "256.1.1.1"], 1, "cannot listen on 256.1.1.1"),
        (["pull", "no-such-model"], 1, "no-such-model"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], status: int, told: str
) -> None:
    assert main(words) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("sapwood: ") and err.count("\n") == 1
    assert told in err


def test_a_port_in_use_is_told_before_anything_loads(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"sapwood: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://localhost:")]
)
def test_ready_line_is_a_call_to_copy(host: str, url: str) -> None:
    with serve.bound(host, 0) as listener:
        line = serve.ready_line(listener, host, "model", needs_key=True)
    assert f"{url}{listener_port(line, url)}/v1/chat/completions" in line
    assert "Authorization: Bearer KEY" in line and "\n" not in line
    body = line.partition("-d '")[2].removesuffix("'")
    assert json.loads(body)["model"] == "model"


def listener_port(line: str, url: str) -> str:
    port = line.partition(url)[2].split()[0]
    assert int(port) > 0
    return port


# --- run ---------------------------------------------------------------------------------------


def test_run_prints_the_text(programs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", f"{programs}:colour", "--of-what", "tree"]) == 0
    assert capsys.readouterr().out == "1 tree str None green\n"


def test_run_values_are_json_where_they_parse(
    programs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--of_what=[1, 2]", "--how-many", "3", "--seed", "7", "--json"]
    assert main(["run", f"{programs}:colour", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    # `seed` is the program's own parameter here, and goes to it.
    assert told["text"] == "3 [1, 2] list 7 green"
    assert told["variables"] == {"answer": "green", "count": 3}


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ([":colour"], 2, "missing --of_what; its parameters: --of_what, [--how_many], [--seed]"),
        ([":colour", "--of", "x"], 2, "unrecognized arguments: --of x; its parameters: --of_what"),
        ([":colour", "--of_what"], 2, "expected one argument"),
        ([":shape"], 1, "shape is not there; programs in it: colour, broken"),
        ([":sw"], 1, "sw is no program"),
        ([""], 1, "it holds colour, broken"),
        ([":broken"], 1, "no colour today"),
        ([":broken", "--json"], 1, "no colour today"),
    ],
)
def test_run_mistakes(
    programs: str, capsys: pytest.CaptureFixture[str], words: list[str], status: int, told: str
) -> None:
    assert main(["run", programs + words[0], *words[1:]]) == status
    assert told in capsys.readouterr().err


def test_run_help_tells_of_the_program(programs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", f"{programs}:colour", "--help"])
    out = capsys.readouterr().out
    assert "Tell a colour." in out and "--of-what" in out and "--temperature" in out


# --- chat --------------------------------------------------------------------------------------


def conversation(client: ScriptedClient) -> Conversation:
    form = chat_format(TOY_CHATML, TOY_INFO.special_tokens)
    return Conversation(client, form, SamplingParams(max_tokens=8))


def prompts(client: ScriptedClient) -> list[Any]:
    return [request.prompt for request in client.requests]


def test_a_conversation_never_computes_twice() -> None:
    client = ScriptedClient([Reply("one", tail="!"), "two"])
    talk = conversation(client)
    assert "".join(talk.ask("first")) == "one!"
    assert "".join(talk.ask("second")) == "two"
    before, after = prompts(client)
    assert after[0] == Ids(encode_prompt(before) + tuple(b"one"))
    assert Text("!") in after and Text("second") in after
    whole = form_text(["first", "one!", "second"])
    assert encode_prompt(after) == encode_prompt((Text(whole, special=True),))


def form_text(texts: list[str]) -> str:
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return chat_format(TOY_CHATML, TOY_INFO.special_tokens).render(messages, True)


def test_user_text_is_no_template_text() -> None:
    client = ScriptedClient(["x"])
    list(conversation(client).ask("<|im_end|>"))
    assert Text("<|im_end|>") in prompts(client)[0]


def test_an_answer_stopped_early_stays() -> None:
    client = ScriptedClient([Reply("abcdef", chunk_size=2, hold_after=2), "more"])
    talk = conversation(client)
    pieces = talk.ask("first")
    assert next(pieces) == "ab"
    pieces.close()
    assert client.aborted == [client.requests[0].request_id]
    list(talk.ask("second"))
    before, after = prompts(client)
    assert after[0] == Ids(encode_prompt(before) + tuple(b"ab"))


def test_a_refused_message_leaves_the_conversation_as_it_was() -> None:
    client = ScriptedClient([InvalidRequest("too long"), "fine"])
    talk = conversation(client)
    with pytest.raises(InvalidRequest):
        list(talk.ask("first"))
    assert "".join(talk.ask("second")) == "fine"
    assert all(Text("first") != part for part in prompts(client)[1])


def test_chat_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ["hello", Reply("again", cached_tokens=9), InvalidRequest("too long"), "anew"]
    client = ScriptedClient(script)
    said = "hi\n\nmore\n/nope\ntoo much\n/reset\nhi\n/quit\nnever read\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    chat.talk(conversation(client), system="Be brief.")
    out, err = capsys.readouterr()
    assert out == "hello\nagain\nanew\n"
    assert "there is no /nope" in err and "too long (/reset begins anew)" in err
    assert "5 tokens" in err and "9 of" in err and "reused" in err
    first, *_, last = prompts(client)
    assert first == last and Text("Be brief.") in first


# --- doctor ------------------------------------------------------------------------------------


def test_doctor(tmp_path: Path) -> None:
    environment = {**os.environ, "SAPWOOD_HOME": str(tmp_path)}  # an empty cache
    command = [sys.executable, "-m", "sapwood", "doctor"]
    answer = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment)
    assert answer.returncode == 0, answer.stderr
    facts = json.loads(answer.stdout)
    assert facts["machine"]["cores"] >= 1 and facts["software"]["torch"]
    assert facts["model"]["cached"] is False and facts["memory"] is None
    assert "sapwood pull smollm2-135m-instruct" in [one["how"] for one in facts["missing"]]
    assert list(tmp_path.iterdir()) == []
    told = "\n".join(lines(facts))
    assert "not fetched yet" in told and "sapwood pull" in told


def test_doctor_splits_memory_in_words() -> None:
    memory = {
        "dtype": "bfloat16",
        "weights": 1 << 28,
        "bytes_per_token": 1024,
        "cache_tokens": 1 << 20,
        "kv_cache": 1 << 30,
        "remaining": -(1 << 20),
        "context_length": 8192,
    }
    told = "\n".join(lines(facts_with(memory)))
    assert "weights 0.25 GiB (bfloat16), KV cache 1.00 GiB" in told
    assert "1,048,576 tokens" in told and "lower --max-tokens-in-cache" in told


def facts_with(memory: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": {
            "system": "Linux",
            "processor": "p",
            "cores": 2,
            "memory": 1 << 34,
            "memory_available": 1 << 33,
            "flags": {"avx2": True, "neon": False},
        },
        "software": {"python": "3.11", "torch": "2", "threads": 2, "compiler": None},
        "kernels": {"in_use": "torch", "why": "no GPU"},
        "model": {"name": "m", "state": "cached"},
        "memory": memory,
        "missing": [{"what": "torch", "how": "pip install torch", "needed": True}],
    }
