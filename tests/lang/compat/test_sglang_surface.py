"""SGLang's surface: every name, every import path, and what stands behind them."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest

import sapwood as sw
from sapwood.compat import sglang

pytestmark = pytest.mark.timeout(60)

EXPORTED = """
Anthropic Crusoe Engine LiteLLM OpenAI Runtime RuntimeEndpoint ServerArgs VertexAI __version__
assistant assistant_begin assistant_end flush_cache function gen gen_int gen_string get_server_info
global_config greedy_token_selection image select separate_reasoning set_default_backend system
system_begin system_end token_length_normalized unconditional_likelihood_normalized user user_begin
user_end video
""".split()

GEN = """
name max_tokens min_tokens n stop stop_token_ids stop_regex temperature top_p top_k min_p
frequency_penalty presence_penalty ignore_eos return_logprob logprob_start_len top_logprobs_num
return_text_in_logprobs dtype choices choices_method regex json_schema
""".split()

PATHS = {
    "sglang.lang.api": "set_default_backend gen function Runtime Engine",
    "sglang.api": "set_default_backend select",
    "sglang.lang.ir": "REGEX_INT REGEX_FLOAT REGEX_BOOL REGEX_STR SglFunction",
    "sglang.lang.chat_template": "ChatTemplate get_chat_template get_chat_template_by_model_path "
    "register_chat_template",
    "sglang.lang.choices": "ChoicesDecision ChoicesSamplingMethod token_length_normalized "
    "greedy_token_selection unconditional_likelihood_normalized",
    "sglang.lang.interpreter": "ProgramState ProgramStateGroup",
    "sglang.lang.backend.base_backend": "BaseBackend",
    "sglang.lang.backend.openai": "OpenAI",
    "sglang.lang.backend.anthropic": "Anthropic",
    "sglang.lang.backend.litellm": "LiteLLM",
    "sglang.lang.backend.vertexai": "VertexAI",
    "sglang.lang.backend.runtime_endpoint": "RuntimeEndpoint Runtime",
    "sglang.test.test_utils": "add_common_sglang_args_and_parse select_sglang_backend",
    "sglang.utils": "read_jsonl dump_state_text download_and_cache_file http_request "
    "print_highlight launch_server_cmd wait_for_server terminate_process encode_image_base64",
    "sglang.srt.constrained.outlines_backend": "build_regex_from_object",
    "sglang.srt.utils": "load_image",
    "sglang.global_config": "global_config",
}


@pytest.fixture
def installed():
    sglang.install()
    yield
    sglang.uninstall()


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("module", [sw, sglang], ids=["sapwood", "compat"])
def test_every_exported_name_is_there(module, name):
    assert getattr(module, name) is not None
    assert name in module.__all__
    assert getattr(sglang, name) is getattr(sw, name)


def test_the_two_ways_to_import_give_one_module():
    assert importlib.import_module("sapwood.compat.sglang") is sglang


def test_gen_has_the_documented_parameters_in_their_order():
    assert list(inspect.signature(sw.gen).parameters)[: len(GEN)] == GEN
    short = [name for name in GEN[: GEN.index("dtype")] if name != "min_tokens"]
    assert list(inspect.signature(sw.gen_int).parameters) == short
    assert list(inspect.signature(sw.gen_string).parameters) == short
    assert list(inspect.signature(sw.select).parameters)[:4] == [
        "name",
        "choices",
        "temperature",
        "choices_method",
    ]
    assert list(inspect.signature(sw.RuntimeEndpoint).parameters) == [
        "base_url",
        "api_key",
        "verify",
        "chat_template_name",
    ]


def test_the_regexes_of_dtypes_are_the_documented_ones(installed):
    ir = importlib.import_module("sglang.lang.ir")
    assert ir.REGEX_INT == r"[-+]?[0-9]+[ \n]*"
    assert ir.REGEX_FLOAT == r"[-+]?[0-9]*\.?[0-9]+[ \n]*"
    assert ir.REGEX_BOOL == r"(True|False)"
    assert re.fullmatch(ir.REGEX_STR, '"two words"')


@pytest.mark.parametrize("path", PATHS)
def test_every_import_path_has_its_names(installed, path):
    module = importlib.import_module(path)
    for name in PATHS[path].split():
        assert getattr(module, name) is not None
    assert set(PATHS[path].split()) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"'{path}' has no 'nothing' here"):
        module.nothing  # noqa: B018


def test_a_program_written_for_sglang_runs_once_it_is_installed():
    code = """
from sapwood.compat import sglang
sglang.install()
import sglang as sgl
import sglang.lang.ir
from sglang.lang.api import set_default_backend
from sglang.lang.chat_template import get_chat_template
from sapwood.runtime.scripted import ScriptedClient

@sgl.function
def program(s, question):
    s += sgl.user(question)
    s += sgl.assistant(sgl.gen("a", max_tokens=4, regex=sglang.lang.ir.REGEX_INT))

set_default_backend(ScriptedClient(["42"]))
assert program.run(question="?")["a"] == "42"
assert get_chat_template("qwen").name == "qwen"
assert sgl.__version__
sglang.install()
sglang.uninstall()
import sys
assert not [name for name in sys.modules if name.split(".")[0] == "sglang"]
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_sglang_itself_is_not_overshadowed(monkeypatch):
    monkeypatch.setitem(sys.modules, "sglang", importlib.import_module("json"))
    with pytest.raises(RuntimeError, match="sglang is installed"):
        sglang.install()
    sglang.uninstall()
    assert sys.modules["sglang"] is importlib.import_module("json")


def test_what_sglang_has_and_we_have_not_is_told():
    with pytest.raises(AttributeError, match="no 'TracerProgramState'"):
        sglang.TracerProgramState  # noqa: B018


# --- helpers -----------------------------------------------------------------------------------


def test_files_of_json_lines_are_read(tmp_path, installed):
    from sapwood.lang.compat.utils import dump_state_text, encode_image_base64, read_jsonl

    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n# comment\n\n[2]\n')
    assert list(read_jsonl(path)) == [{"a": 1}, [2]]
    dump_state_text(tmp_path / "out.txt", ["one", "two"])
    assert "two" in (tmp_path / "out.txt").read_text()
    (tmp_path / "i").write_bytes(b"abc")
    assert encode_image_base64(str(tmp_path / "i")) == encode_image_base64(b"abc") == "YWJj"


def test_files_are_downloaded_once(tmp_path):
    from sapwood.lang.compat.utils import download_and_cache_file

    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("x")
    for text in ("x", "y"):
        assert download_and_cache_file(source.as_uri(), target) == str(target)
        source.write_text(text)
    assert target.read_text() == "x"


def test_images_are_refused_by_name():
    from sapwood.lang.compat.utils import load_image

    with pytest.raises(sw.InvalidRequest, match="load_image: 'cat.png'"):
        load_image("cat.png")


def test_the_benchmarks_command_line(monkeypatch):
    from argparse import ArgumentParser

    from sapwood.lang.compat import test_utils

    monkeypatch.setattr(sys, "argv", ["bench", "--parallel", "4", "--backend", "what"])
    args = test_utils.add_common_sglang_args_and_parse(ArgumentParser())
    assert (args.parallel, args.host, args.port) == (4, "127.0.0.1", 30000)
    assert (args.device, args.result_file) == ("auto", "result.jsonl")
    with pytest.raises(ValueError, match="'what'"):
        test_utils.select_sglang_backend(args)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    args.backend = "gpt-4o"
    with test_utils.select_sglang_backend(args) as backend:
        assert backend.get_model_name() == "gpt-4o"


# --- back ends of one's own --------------------------------------------------------------------


def test_a_plugged_in_back_end_generates():
    from sapwood.lang.compat.base_backend import BaseBackend

    class Echo(BaseBackend):
        def generate(self, s, sampling_params):
            assert sampling_params.temperature == 0.5
            text = f"<{len(s.text_)} {sampling_params.max_new_tokens} {len(s.messages_)}>"
            return [text] * sampling_params.n if sampling_params.n > 1 else text, {}

    @sw.function
    def program(s):
        s += sw.user("hi") + sw.assistant(sw.gen("a", max_tokens=3))
        s += sw.gen("b", n=2)

    backend = Echo()
    state = program.run(backend=backend, temperature=0.5)
    assert state["a"] == f"<{len('USER:hi' + chr(10) + 'ASSISTANT:')} 3 2>"
    assert len(state["b"]) == 2
    backend.client.close()


def test_a_plugged_in_back_end_is_shut_down_at_exit():
    code = """
import sapwood as sw
from sapwood.lang.compat.base_backend import BaseBackend

class Echo(BaseBackend):
    def generate(self, s, sampling_params):
        return "echo", {}

    def shutdown(self):
        print("shut down")

@sw.function
def program(s):
    s += "q" + sw.gen("a")

print(program.run(backend=Echo())["a"])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "echo\nshut down\n", "")


def test_a_plugged_in_back_end_that_fails_is_told():
    from sapwood.lang.compat.base_backend import BaseBackend

    class Broken(BaseBackend):
        def generate(self, s, sampling_params):
            raise KeyError("lost")

    @sw.function
    def program(s, expression):
        s += "q" + expression

    backend = Broken()
    with pytest.raises(sw.ProgramError, match="KeyError: 'lost'"):
        program.run(expression=sw.gen("a"), backend=backend)["a"]
    with pytest.raises(sw.InvalidRequest, match="choices"):
        program.run(expression=sw.select("a", ["x", "y"]), backend=backend)
    backend.client.close()
