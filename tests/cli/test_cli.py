"""The command line: quick help, mistakes told in one clear line, programs and chats that run."""

import io
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sapwood import _native, set_default_backend
from sapwood.runtime.chat import chat_format
from sapwood.runtime.config import CacheOptions, EngineConfig, KvDtype, ModelOptions
from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.native_backend import NativeBackend
from sapwood.runtime.protocol import Ids, SamplingParams, Text
from sapwood.runtime.scripted import ScriptedClient
from sapwood.runtime.scripted_replies import Reply
from sapwood.runtime.toy_tokens import TOY_CHATML, TOY_INFO, encode_prompt
from sapwood.server.cli import COMMANDS, main
from sapwood.server.commands import chat, diagnosis, engine_options, serve
from sapwood.server.commands.doctor import lines
from sapwood.server.commands.failure import CommandError
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
        (["serve", "--max-drafts", "-1"], 1, "max_drafts: -1 is neither 0 nor a positive integer"),
        (["serve", "--max-tokens-in-cache", "3"], 1, "3 is less than one page of the cache (16"),
        (["chat", "--temperature", "nan"], 1, "--temperature: nan is not a finite number"),
        (["chat", "--max-tokens", "-1"], 1, "--max-tokens: -1 must be at least 0"),
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


@pytest.mark.parametrize(
    ("words", "usage", "told"),
    [
        (["serve", "--prot", "1"], "sapwood serve", "no option --prot: did you mean --port?"),
        (["chat", "--max-token=3"], "sapwood chat", "no option --max-token: did you mean --max-"),
        (["pull", "a", "b"], "sapwood pull", "unexpected argument 'b'"),
        (["doctor", "--dtype", "int3"], "sapwood doctor", "invalid choice: 'int3'"),
        (["run"], "sapwood run", "required: FILE.py:function\n"),
        (["run", "--seed", "1", "f.py"], "sapwood run", "options come after FILE.py:function"),
        (["--nope"], "sapwood [-h]", "sapwood: there is no option --nope"),
    ],
)
def test_mistaken_options_show_the_commands_usage(
    capsys: pytest.CaptureFixture[str], words: list[str], usage: str, told: str
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"usage: {usage}") and told in err and "words" not in err


def test_a_cache_smaller_than_the_context_is_noted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for tokens, noted in ((48, True), (TOY_INFO.context_length, False)):
        client = ScriptedClient(["x"], info=replace(TOY_INFO, max_tokens_in_cache=tokens))
        monkeypatch.setattr("sapwood.runtime.launch.launch", lambda *_, client=client: client)
        assert engine_options.launched(EngineConfig()) is client
        assert ("note: the KV cache holds 48 tokens" in capsys.readouterr().err) == noted


@pytest.mark.parametrize("command", ["doctor", "run"])
def test_output_that_cannot_be_written_is_one_line(programs: str, command: str) -> None:
    words = [f"{programs}:colour", "--of-what", "tree"] if command == "run" else ["--model", "nope"]
    with open("/dev/full", "w") as full:
        answer = subprocess.run(
            [sys.executable, "-m", "sapwood", command, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert answer.returncode == 1 and answer.stderr == "sapwood: No space left on device\n"


def test_a_reader_that_leaves_is_met_with_silence(programs: str) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sapwood", "run", f"{programs}:colour", "--of-what", "tree"]
    answer = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert answer.returncode == 1 and answer.stderr == ""


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
        ([":colour"], 2, ":colour --of-what VALUE [--how-many VALUE] [--seed VALUE] [options]"),
        ([":colour"], 2, "missing --of-what"),
        ([":colour", "--of", "x"], 2, "there is no option --of: did you mean --of-what?"),
        ([":colour", "--of_what", "x", "--temperature", "nan"], 1, "--temperature: nan is not"),
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


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("x = (", "SyntaxError: '(' was never closed"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def f():\n    return {}['k']\nf()", "KeyError: 'k'"),
        ("import sapwood as sw\nsw.gen('a', temperature=-1)", "temperature: -1 must be"),
        ("import sapwood as sw\n@sw.function\ndef f(s):\n    1 / 0", "ZeroDivisionError: division"),
    ],
)
def test_a_broken_file_shows_the_users_frames_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, last: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    set_default_backend(ScriptedClient(["x"]))
    try:
        assert main(["run", str(path)]) == 1
    finally:
        set_default_backend(None)
    out, err = capsys.readouterr()
    assert out.strip() == "" and err.startswith(f"sapwood: {path} failed:\n")
    frames = [line.split('"')[1] for line in err.splitlines() if line.startswith("  File ")]
    assert frames and set(frames) == {str(path)}
    assert last in err.splitlines()[-1]


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
    client = ScriptedClient(["hello", Reply("again", cached_tokens=9), "anew"])
    pipe(monkeypatch, b"hi\n\nmore\r\n/nope\n/reset\nhi\n/quit\nnever read\n")
    chat.talk(conversation(client), system="Be brief.")
    out, err = capsys.readouterr()
    assert out == "hello\nagain\nanew\n"
    assert "there is no /nope" in err
    assert "5 tokens" in err and "9 of" in err and "reused" in err
    first, *_, last = prompts(client)
    assert first == last and Text("Be brief.") in first


def pipe(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(said)))


def test_a_failed_answer_ends_a_chat_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = InvalidRequest("max_tokens: 8, but", field="max_tokens")
    client = ScriptedClient(["hello", refusal, "never"])
    pipe(monkeypatch, b"hi\ntoo much\nhi\n")
    with pytest.raises(InvalidRequest, match="^--max-tokens: 8, but"):
        chat.talk(conversation(client), system=None)
    assert len(client.requests) == 2


def test_a_failed_answer_leaves_a_talk_in_a_terminal_going(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = ScriptedClient([InvalidRequest("too long"), "anew"])
    lines = iter(["too much", "hi", "/quit"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    chat.talk(conversation(client), system=None)
    out, err = capsys.readouterr()
    assert out == "anew\n" and "too long (/reset begins anew)" in err


def test_chat_input_is_utf8(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(monkeypatch, b"h\xc3\xa9\n\xff\n")
    client = ScriptedClient(["hello", "never"])
    with pytest.raises(CommandError, match="the input is not UTF-8"):
        chat.talk(conversation(client), system=None)
    assert capsys.readouterr().out == "hello\n" and Text("hé") in prompts(client)[0]


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
    native = _native.status()
    assert facts["native"]["available"] == native.available
    assert facts["native"]["tier"] == native.tier and native.reason in told


@pytest.mark.parametrize(
    ("variable", "value", "exit_status", "told"),
    [
        ("SAPWOOD_NATIVE", "0", 0, "torch on the CPU, several times slower\n           switch"),
        ("SAPWOOD_NATIVE", "0", 0, "optional    native code, which is several times faster: "),
        ("CXX", "/no/such", 0, "CXX=/no/such: there is no such compiler"),
        ("SAPWOOD_TIER", "generic", 0, "code for generic\n           SAPWOOD_TIER=generic asks"),
        ("SAPWOOD_TIER", "sse9", 1, "MISSING    native code: SAPWOOD_TIER=sse9: the tiers are amx"),
        ("SAPWOOD_NATIVE", "no", 1, "MISSING    native code: SAPWOOD_NATIVE is 0 or 1, not 'no'"),
    ],
)  # fmt: skip
def test_doctor_says_which_kernels_run_and_why(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    exit_status: int,
    told: str,
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["doctor"]) == exit_status
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("is_native", "exit_status", "told"),
    [
        (True, 0, ("native code for avx2", "optional    torch, which computes where there is no")),
        (False, 1, ("none: there is neither native code nor torch", "MISSING    torch, which")),
    ],
)
def test_doctor_needs_torch_only_without_native_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_native: bool,
    exit_status: int,
    told: tuple[str, ...],
) -> None:
    found = _native.NativeStatus(is_native, "avx2", "c++", "by a test", Path(), ())
    version = diagnosis._version
    monkeypatch.setattr(diagnosis, "status", lambda: found)
    monkeypatch.setattr(diagnosis, "_version", lambda p: None if p == "torch" else version(p))
    assert main(["doctor"]) == exit_status
    out = capsys.readouterr().out
    assert "torch not installed" in out and all(one in out for one in told)


@pytest.mark.skipif(not _native.status().available, reason=_native.status().reason)
@pytest.mark.parametrize("options", [[], ["--kv-dtype", "int8"], ["--dtype", "fp32"]], ids=str)
def test_doctor_splits_memory_as_the_engine_does(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json", *options]) == 0
    told = json.loads(capsys.readouterr().out)["memory"]["bytes_per_token"]
    kv_dtype: KvDtype = "int8" if "int8" in options else "auto"
    config = EngineConfig(
        ModelOptions(dtype="fp32" if "fp32" in options else "auto"), CacheOptions(kv_dtype=kv_dtype)
    )
    assert told == NativeBackend.load(resolve_model(None), config).bytes_per_token


def test_doctor_loads_no_torch() -> None:
    program = (
        "import sys; from sapwood.server.cli import main; main(['doctor']);"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["nope", "./nope.gguf", "a/b/c"])
def test_doctor_refuses_a_model_as_pull_does(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["pull", name]) == 1
    told = capsys.readouterr().err.removeprefix("sapwood: ").strip()
    assert main(["doctor", "--model", name]) == 1
    assert f"{name}: {told}\n" in capsys.readouterr().out


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
        "software": {"python": "3.11", "torch": "2", "triton": None},
        "native": {"available": False, "tier": None, "compiler": None, "reason": "no compiler"},
        "gpu": "a GPU",
        "kernels": {"in_use": "torch", "why": "no compiler"},
        "model": {"name": "m", "state": "cached"},
        "memory": memory,
        "missing": [{"what": "torch", "how": "pip install torch", "needed": True}],
    }
