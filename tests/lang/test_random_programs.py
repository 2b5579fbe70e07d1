"""Random programs agree with a naive interpreter, sequential and of strings and dicts alone.

What that one says is the meaning of a program; the real one, with its callbacks, threads and event
loop, must agree, also where steps fail. The module's timeout is the deadline: a hang fails here.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sapwood as sw
from sapwood.lang.branch import Branch
from sapwood.lang.errors import Failure
from sapwood.runtime.protocol import GenerateRequest, ScoreRequest
from sapwood.runtime.scripted import ScriptedClient
from sapwood.runtime.scripted_replies import Reply
from sapwood.runtime.toy_tokens import decode, encode_prompt

pytestmark = pytest.mark.timeout(240)

DEFAULT_SYSTEM = "Be helpful."  # of the toy client's template

# A program is a tuple of statements:
#   ("text", text) ("gen", name, n) ("select", name, choices) ("set", name, value)
#   ("role", role, body) ("scope", name, body) ("read", name)
#   ("fork", (body, ...), join)     join: None, or (mode, errors)


class Failed(Exception):
    """A step of the program failed; `prompt` is what it was asked with."""


def answer(prompt: str, index: int = 0) -> str:
    """What the client says to a prompt. Fails where the prompt asks for it."""
    total = sum(map(ord, prompt)) + len(prompt) + index
    if "!" in prompt and total % 3 == 0:
        raise Failed(prompt)
    return "abcdefgh"[total % 8] * (1 + total % 3)


def choose(prompt: str, choices: tuple[str, ...]) -> str:
    if "!" in prompt and len(prompt) % 4 == 0:
        raise Failed(prompt)
    return choices[len(prompt) % len(choices)]


@dataclass
class Line:
    """One line of a program. Once it has failed nothing more is added to it."""

    text: str = ""
    variables: dict[str, Any] = field(default_factory=dict)  # a Failed stands for a failed one
    messages: list[tuple[str, str]] = field(default_factory=list)
    failure: Failed | None = None
    kept: "list[Line]" = field(default_factory=list)  # all branches, in the order they are run

    def say(self, text: str) -> None:
        if self.failure is None:
            self.text += text

    def make(self, name: str, make: Any) -> None:
        if self.failure is None:
            try:
                value = make()
                self.variables[name] = value
                self.text += value[0] if isinstance(value, list) else value
                return
            except Failed as failed:
                self.failure = failed
        self.variables[name] = self.failure

    def run(self, program: tuple[Any, ...]) -> None:
        for statement in program:
            getattr(self, "do_" + statement[0])(*statement[1:])

    def do_text(self, text: str) -> None:
        self.say(text)

    def do_gen(self, name: str, n: int) -> None:
        def make() -> Any:
            texts = [answer(self.text, index) for index in range(n)]
            return texts if n > 1 else texts[0]

        self.make(name, make)

    def do_select(self, name: str, choices: tuple[str, ...]) -> None:
        self.make(name, lambda: choose(self.text, choices))

    def do_set(self, name: str, value: Any) -> None:
        self.variables[name] = value

    def do_read(self, name: str) -> None:
        """The program goes on whatever it read."""

    def do_role(self, role: str, body: tuple[Any, ...]) -> None:
        if not self.messages and role != "system":
            self.say(_wrapped("system", DEFAULT_SYSTEM))
            if self.failure is None:
                self.messages.append(("system", DEFAULT_SYSTEM))
        self.say(f"<|im_start|>{role}\n")
        start = len(self.text)
        self.run(body)
        if self.failure is None:
            self.messages.append((role, self.text[start:].lstrip()))
        self.say("<|im_end|>\n")

    def do_scope(self, name: str, body: tuple[Any, ...]) -> None:
        start = len(self.text)
        self.run(body)
        self.variables[name] = self.text[start:] if self.failure is None else self.failure

    def branch(self) -> "Line":
        variables, messages = dict(self.variables), list(self.messages)
        return Line(self.text, variables, messages, self.failure, self.kept)

    def do_fork(self, bodies: tuple[Any, ...], join: tuple[str, str] | None) -> None:
        inherited = set(self.variables)
        branches = [self.branch() for _ in bodies]
        start = len(self.text)
        for branch, body in zip(branches, bodies, strict=True):
            self.kept.append(branch)
            branch.run(body)
        if join is None:
            return
        mode, errors = join
        if mode == "concate_and_append":
            for branch in branches:
                if branch.failure is None:
                    self.say(branch.text[start:])
            return
        names = dict.fromkeys(name for branch in branches for name in branch.variables)
        for name in [name for name in names if name not in inherited]:
            self.variables[name] = gathered(branches, name, errors)


def gathered(branches: list[Line], name: str, errors: str) -> list[Any]:
    values = []
    for branch in branches:
        value = branch.variables.get(name, branch.failure)
        if isinstance(value, Failed):
            values.append(value if errors == "keep" else None)
        elif name in branch.variables:
            values.append(value)
    return values


def _wrapped(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


# --- the same, run ------------------------------------------------------------------------------

VALUES = st.sampled_from([1, "v", None])
TEXTS = st.sampled_from(["t", "uv", "!", " ", "é"])
NAMES = st.sampled_from("abcd")
CHOICES = st.sampled_from([("x",), ("yes", "no"), ("p", "qq", "rrr")])
JOINS = st.sampled_from(
    [None, ("gather_variable", "keep"), ("gather_variable", "none"), ("concate_and_append", "keep")]
)
SIMPLE = st.one_of(
    st.tuples(st.just("text"), TEXTS),
    st.tuples(st.just("gen"), NAMES, st.sampled_from([1, 1, 1, 2])),
    st.tuples(st.just("select"), NAMES, CHOICES),
    st.tuples(st.just("set"), NAMES, VALUES),
    st.tuples(st.just("read"), NAMES),
)


def bodies(statements: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[Any]:
    return st.lists(statements, min_size=least, max_size=4).map(tuple)


def compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    body = bodies(inner)
    return st.one_of(
        inner,
        st.tuples(st.just("scope"), NAMES, body),
        st.tuples(st.just("fork"), st.lists(body, min_size=1, max_size=3).map(tuple), JOINS),
    )


STATEMENTS = compound(compound(SIMPLE))
ROLES = st.tuples(
    st.just("role"), st.sampled_from(["system", "user", "assistant"]), bodies(STATEMENTS)
)
FORKED_ROLES = st.tuples(
    st.just("fork"),
    st.lists(bodies(st.one_of(SIMPLE, ROLES)), min_size=1, max_size=3).map(tuple),
    st.sampled_from([None, ("gather_variable", "keep"), ("gather_variable", "none")]),
)
PROGRAMS = bodies(st.one_of(STATEMENTS, ROLES, FORKED_ROLES), least=1)


def client() -> ScriptedClient:
    """Answers as the naive interpreter does."""

    def script(request: GenerateRequest) -> list[Reply]:
        prompt = decode(encode_prompt(request.prompt))
        try:
            texts = [answer(prompt, index) for index in range(request.sampling.n)]
        except Failed as failed:
            return [Reply("half", chunk_size=1, error=failed)] * request.sampling.n
        return [Reply(text, chunk_size=1) for text in texts]

    def scores(request: ScoreRequest) -> list[float] | Failed:
        prompt = decode(encode_prompt(request.prompt))
        try:
            best = request.options.index(choose(prompt, request.options))
        except Failed as failed:
            return failed
        # The mean of its tokens decides.
        return [-1.0 * (i != best) * len(o.encode()) for i, o in enumerate(request.options)]

    return ScriptedClient(script, scores=scores)


def speak(s: sw.ProgramState, program: tuple[Any, ...], kept: list[sw.ProgramState]) -> None:
    """The program on a real state; `kept`: its branches, in the order of their forks."""
    for statement in program:
        match statement:
            case "text", text:
                s += text
            case "gen", name, n:
                s += sw.gen(name, n=n, heal=False)
            case "select", name, choices:
                s += sw.select(name, choices)
            case "set", name, value:
                s[name] = value
            case "read", name:
                with suppress(sw.ProgramError, KeyError):
                    s[name]
            case "role", role, body:
                with getattr(s, role)():
                    speak(s, body, kept)
            case "scope", name, body:
                with s.var_scope(name):
                    speak(s, body, kept)
            case "fork", bodies, join:
                _fork(s, bodies, join, kept)


def _fork(s: sw.ProgramState, bodies: Any, join: Any, kept: list[sw.ProgramState]) -> None:
    forks = s.fork(len(bodies))
    for fork, body in zip(forks, bodies, strict=True):
        kept.append(fork)
        speak(fork, body, kept)
    if join is not None:
        forks.join(mode=join[0], errors=join[1])


async def aspeak(
    s: sw.AsyncProgramState, program: tuple[Any, ...], kept: list[sw.AsyncProgramState]
) -> None:
    """The same with awaited reads."""
    for statement in program:
        match statement:
            case "text", text:
                s += text
            case "gen", name, n:
                s += sw.gen(name, n=n, heal=False)
            case "select", name, choices:
                s += sw.select(name, choices)
            case "set", name, value:
                s[name] = value
            case "read", name:
                with suppress(sw.ProgramError, KeyError):
                    await s.get(name)
            case "role", role, body:
                with getattr(s, role)():
                    await aspeak(s, body, kept)
            case "scope", name, body:
                with s.var_scope(name):
                    await aspeak(s, body, kept)
            case "fork", bodies, join:
                forks = s.fork(len(bodies))
                for fork, body in zip(forks, bodies, strict=True):
                    kept.append(fork)
                    await aspeak(fork, body, kept)
                if join is not None:
                    await forks.join(mode=join[0], errors=join[1])


def agree(branch: Branch, line: Line) -> None:
    executor = branch.executor
    assert executor.idle
    assert (executor.failure is not None) == (line.failure is not None)
    assert plain(branch) == {name: simple(value) for name, value in line.variables.items()}
    if line.failure is None:
        assert executor.transcript.text() == line.text
        messages = [(m["role"], m["content"]) for m in executor.transcript.messages]
        assert messages == line.messages
    else:
        assert executor.failure.cause.args == line.failure.args


def plain(branch: Branch) -> dict[str, Any]:
    return {
        name: simple(variable.failure or variable.value)
        for name, variable in branch.variables.items()
    }


def simple(value: Any) -> Any:
    """A failure as the prompt that it came from."""
    if isinstance(value, list):
        return [simple(item) for item in value]
    if isinstance(value, Failure):
        return simple(value.cause)
    if isinstance(value, sw.ProgramError):
        return simple(value.__cause__)
    return ("failed", value.args[0]) if isinstance(value, Failed) else value


def run_plain(program: tuple[Any, ...], backend: ScriptedClient, stream: bool) -> list[Branch]:
    kept: list[sw.ProgramState] = []
    body = sw.function(lambda s: speak(s, program, kept))
    state = body.run(backend=backend, stream=stream)
    assert state.ret_value is None
    for one in (state, *kept):
        one.error()
    return [one._branch for one in (state, *kept)]


def run_async(program: tuple[Any, ...], backend: ScriptedClient) -> list[Branch]:
    kept: list[sw.AsyncProgramState] = []

    @sw.function
    async def body(s: sw.AsyncProgramState) -> None:
        await aspeak(s, program, kept)

    async def main() -> list[Branch]:
        state = await body.arun(backend=backend)
        for one in kept:
            await one.error()
        return [one._branch for one in (state, *kept)]

    return asyncio.run(main())


def check(program: tuple[Any, ...], how: str) -> None:
    line = Line()
    line.run(program)
    backend = client()
    try:
        if how == "async":
            branches = run_async(program, backend)
        else:
            branches = run_plain(program, backend, how == "stream")
        for branch, expected in zip(branches, [line, *line.kept], strict=True):
            agree(branch, expected)
    finally:
        backend.close()


WAYS = st.sampled_from(["plain", "stream", "async"])


@settings(max_examples=200, deadline=None)
@given(program=PROGRAMS, how=WAYS)
def test_random_programs_mean_what_the_naive_interpreter_says(program, how):
    check(program, how)


@pytest.mark.slow
@settings(max_examples=1_500, deadline=None)
@given(program=PROGRAMS, how=WAYS)
def test_many_random_programs_mean_what_the_naive_interpreter_says(program, how):
    check(program, how)
