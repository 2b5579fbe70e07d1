"""The public names, and what importing them loads."""

import subprocess
import sys

import pytest

import sapwood as sw

PUBLIC = """
Anthropic AsyncForkGroup AsyncProgramState Cancelled Choice ChoicesMethod Crusoe Decision
DecodeError Diverged Ebnf Engine EngineDied EngineError ForkGroup InvalidRequest JsonSchema Lark
LiteLLM Node OpenAI Overloaded Program ProgramError ProgramState ProgramTimeout Regex Runtime
RuntimeEndpoint SamplingParams SapwoodError ServerArgs StructuralTag Unreachable VertexAI
__version__ assistant assistant_begin assistant_end flush_cache function gen gen_int gen_string
get_server_info global_config greedy_token_selection image record replay select separate_reasoning
set_default_backend system system_begin system_end token_length_normalized
unconditional_likelihood_normalized user user_begin user_end video
""".split()


def test_the_public_names_are_these() -> None:
    assert sw.__all__ == PUBLIC == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(sw))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(sw, name)
    if callable(value) and not name.endswith(("_begin", "_end", "_normalized", "_selection")):
        assert value.__doc__, f"{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'gne'"):
        sw.gne  # noqa: B018


LIGHT = ["sapwood", "sapwood.lang", "sapwood.runtime.chat", "sapwood.runtime.scripted"]
HEAVY = ["torch", "transformers", "triton", "numpy", "numba", "interegular", "outlines_core"]
HEAVY += ["tokenizers", "fastapi", "pydantic", "jinja2", "asyncio"]


@pytest.mark.parametrize("module", LIGHT)
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_program_runs_without_torch() -> None:
    code = """
import sys
import sapwood as sw
from sapwood.runtime.scripted import ScriptedClient

@sw.function
def program(s):
    s += sw.user("hi") + sw.assistant(sw.gen("a", regex="x+", max_tokens=3))

assert program.run(backend=ScriptedClient(["xx"]))["a"] == "xx"
assert not {"torch", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
