"""Turns a program's nodes into steps, as the program speaks.

Owns: what must be known at once when a node is submitted: the names of variables, the roles, the
ordinals of random draws. Everything wrong with a node is raised here, at the line that says it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..runtime.errors import InvalidRequest
from ..runtime.protocol import LogprobOptions
from .abilities import check_generate, check_heal, check_place, check_select
from .executor import Executor, Fork
from .nodes import Gen, Literal, Media, Node, Reasoning, RoleBegin, RoleEnd, Select, Sequence
from .observer import Added, Forked, ScopeBegun, ScopeEnded
from .reads import Read, of_variable, wait
from .run import Run
from .speculative import Blank, Form, shared_sampling
from .steps import (
    AddMessage,
    AddText,
    BeginReasoning,
    CloseMessage,
    CloseScope,
    EndReasoning,
    Fill,
    Generate,
    OpenMessage,
    OpenScope,
    Place,
    Scope,
    Score,
)
from .variables import Meta, Variable, check_name

_MAX_PATH = 32  # numbers in a random path; a longer one is folded


class Branch:
    """One line of a program: its root, or one of its forks. Written by the program's threads."""

    def __init__(self, run: Run, executor: Executor | None = None) -> None:
        self.run = run
        self.executor = executor or Executor(run)
        self.variables: dict[str, Variable] = {}
        self.roles: tuple[str, ...] = ()  # of the finished messages
        self.open_role: str | None = None
        self.joined = False
        # What the body returned. Not in the run, which lives as long as a request of it: the value
        # may hold states, and these must become garbage when their user drops them.
        self.return_value: Any = None
        self._ordinal = 0
        self._has_text = False  # in the open message
        self._form: list[Literal | Gen] | None = None  # of a message that is asked for at once

    # --- nodes ---------------------------------------------------------------------------------

    def submit(self, expression: object) -> None:
        """Raises TypeError for what is no expression, InvalidRequest for what cannot be done."""
        if self.joined:
            raise InvalidRequest("this branch was joined: nothing can be added to it any more")
        node = Literal(expression) if isinstance(expression, str) else expression
        self._visit(node)
        if isinstance(node, Node):
            self.run.observer(Added(self, node))
        if self.run.synchronous:
            wait(self.run, self.end())

    def _visit(self, node: object) -> None:
        match node:
            case Literal() | Gen() if self._form is not None:
                self._form.append(node)
            case Literal(text):
                self._has_text = self._has_text or bool(text)
                self.executor.submit(AddText(text))
            case Sequence(items):
                for item in items:
                    self._visit(item)
            case Gen():
                self._gen(node)
            case Reasoning(items):
                for item in items:
                    self._reason(item, node)
            case Media(kind, source):
                raise InvalidRequest(
                    f"{kind}: {source!r}: the model {self.run.client.info().model} has no vision",
                    field=kind,
                )
            case Select():
                check_select(self.run.client.info(), node.choices)
                self._has_text = True
                variable = self.declare(node.name)
                step = Score(
                    variable,
                    node.choices,
                    node.method,
                    node.location,
                    node.timeout,
                    node.early_stop,
                )
                self.executor.submit(step)
            case RoleBegin(role):
                self._begin(role)
            case RoleEnd(role):
                self._end(role)
            case None:
                raise ValueError("None was added to a program's state")
            case _:
                raise TypeError(
                    f"{type(node).__name__} {node!r} cannot be added to a program's state: "
                    "add text or an expression such as gen(...)"
                )

    def _gen(self, node: Gen, hidden: Variable | None = None) -> None:
        """`hidden`: the variable to fill, in the place of one that the program sees."""
        info = self.run.client.info()
        sampling = node.sampling.over(self.run.defaults)
        params = sampling.params(node.constraint, (*node.added_stop, *info.template_stop))
        logprobs = sampling.logprobs()
        check_generate(info, params, logprobs)
        heal = check_heal(info, sampling.heal)
        check_place(info, self.open_role, has_text=self._has_text)
        self._has_text = True
        path = (*self.executor.path, self._next_ordinal())
        variable = hidden or self.declare(node.name, logprobs)
        step = Generate(
            variable, params, logprobs, path, node.location, node.decoder, node.timeout, heal
        )
        self.executor.submit(step)

    def _reason(self, item: object, node: Reasoning) -> None:
        """A run that streams shows the reasoning as it comes, and so keeps nothing apart."""
        if not isinstance(item, Gen) or self.run.stream:
            self._visit(item)
            return
        self._refuse_in_form("separate_reasoning")
        place, whole = Place(), Variable(item.name)
        self.executor.submit(BeginReasoning(place))
        self._gen(item, whole)
        answer = self.declare(item.name)
        reasoning = self.declare(f"{item.name}_reasoning_content")
        self.executor.submit(EndReasoning(place, whole, answer, reasoning, node.format))

    def _begin(self, role: str) -> None:
        if self.open_role is not None:
            raise InvalidRequest(
                f"a {role} message cannot begin inside a {self.open_role} message", field="role"
            )
        chat = self.run.chat
        prefix = chat.begin(self.roles, role)
        if not self.roles and role != "system" and chat.default_system is not None:
            self.executor.submit(AddMessage("system", chat.default_system))
        self.open_role, self._has_text = role, False
        self.executor.submit(AddText(prefix, special=True))
        self.executor.submit(OpenMessage(role))
        asks_once = self.run.num_api_spec_tokens is not None
        if (
            asks_once
            and role == "assistant"
            and self.run.client.info().abilities.speaks == "messages"
        ):
            self._form = []

    def _refuse_in_form(self, verb: str) -> None:
        if self._form is not None:
            raise InvalidRequest(
                f"{verb}: not within a message that num_api_spec_tokens asks for at once",
                field="num_api_spec_tokens",
            )

    def _fill(self, nodes: "list[Literal | Gen]") -> None:
        """Ask for the whole message that these nodes make."""
        info, num_tokens = self.run.client.info(), self.run.num_api_spec_tokens
        gens = [node for node in nodes if isinstance(node, Gen)]
        if not gens or num_tokens is None:
            self._form = None
            for node in nodes:
                self._visit(node)
            return
        params = []
        for gen in gens:
            if gen.decoder is not None:
                self._refuse_in_form("gen(type=...)")
            sampling = gen.sampling.over(self.run.defaults)
            params.append(sampling.params(gen.constraint, (*gen.added_stop, *info.template_stop)))
            check_generate(info, params[-1], sampling.logprobs())
            check_heal(info, sampling.heal)
        sampling_of_all = shared_sampling(params, num_tokens)
        stops = iter(one.stop for one in params)
        form = Form(
            tuple(
                node.text
                if isinstance(node, Literal)
                else Blank(self.declare(node.name), next(stops))
                for node in nodes
            )
        )
        path = (*self.executor.path, self._next_ordinal())
        limit = min((gen.timeout for gen in gens if gen.timeout is not None), default=None)
        self._form = None
        self.executor.submit(Fill(form, sampling_of_all, path, gens[0].location, limit))

    def _end(self, role: str) -> None:
        if self.open_role != role:
            state = "no message" if self.open_role is None else f"a {self.open_role} message"
            raise InvalidRequest(f"a {role} message cannot end here: {state} is open", field="role")
        self._fill(self._form or [])
        suffix = self.run.chat.end(self.roles, role)
        self.executor.submit(CloseMessage(role))
        self.executor.submit(AddText(suffix, special=True))
        self.roles, self.open_role = (*self.roles, role), None

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        check_name(name)
        self._refuse_in_form("var_scope")
        scope = Scope()
        self.executor.submit(OpenScope(scope))
        self.run.observer(ScopeBegun(self))
        try:
            yield
        finally:
            self.executor.submit(CloseScope(scope, self.declare(name)))
            self.run.observer(ScopeEnded(self, name))

    # --- variables -----------------------------------------------------------------------------

    def declare(self, name: str | None, logprobs: LogprobOptions | None = None) -> Variable:
        """A new variable under this name; an unnamed one is kept nowhere."""
        variable = Variable(name, logprobs=logprobs)
        if name is not None:
            with self.run.changed:
                self.variables[name] = variable
                self.run.announce()
        return variable

    def set(self, name: str, value: Any, meta: Meta | None = None) -> None:
        check_name(name)
        variable = Variable(name)
        variable.set(value, meta)
        with self.run.changed:
            self.variables[name] = variable
            self.run.announce()

    # --- reading -------------------------------------------------------------------------------

    def variable(self, name: str, *, for_body: bool = False) -> Read[Variable]:
        """`for_body`: the program may still run elsewhere and declare it."""
        return of_variable(self.run, self.variables, name, for_body=for_body)

    def rest(self, *, for_body: bool = False) -> Read[None]:
        """Nothing is left to do, whether it went well or not."""
        return Read(
            lambda: self.executor.idle and (self.run.body_done or not for_body), lambda: None
        )

    def end(self, *, for_body: bool = False) -> Read[None]:
        """Nothing is left to do; raises what the branch, or the body, failed with."""
        return Read(self.rest(for_body=for_body).ready, self._raise_error)

    def returned(self, *, for_body: bool = False) -> Read[Any]:
        """What the body returned; with `for_body`, once it has."""

        def result() -> Any:
            if for_body and self.run.body_error is not None:
                raise self.run.body_error
            return self.return_value

        return Read(lambda: self.run.body_done or not for_body, result)

    def _raise_error(self) -> None:
        error = self.error()
        if error is not None:
            raise error

    def error(self) -> BaseException | None:
        """What went wrong so far; a body's own error goes before what it led to."""
        if self.run.body_error is not None:
            return self.run.body_error
        failure = self.executor.failure
        return None if failure is None else failure.error()

    def cancel_program(self) -> None:
        """From outside: also a body that waits for something else is broken off."""
        self.executor.cancel()
        self.run.cancel_body()

    # --- forks ---------------------------------------------------------------------------------

    def fork(self, size: int, position_ids_offset: object = None) -> "list[Branch]":
        """Does not wait: the new branches begin when this one gets here."""
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InvalidRequest(f"size: {size!r} is not a positive integer", field="size")
        offsets = position_ids_offset
        if offsets is not None and (
            not isinstance(offsets, list | tuple)
            or len(offsets) != size
            or not all(type(offset) is int and offset >= 0 for offset in offsets)
        ):
            raise InvalidRequest(
                f"position_ids_offset: {offsets!r} is not a number for each of {size} branches",
                field="position_ids_offset",
            )
        self._refuse_in_form("fork")
        if self.joined:
            raise InvalidRequest("this branch was joined: it cannot be forked any more")
        ordinal = self._next_ordinal()
        children = [self._child((*self.executor.path, ordinal, i)) for i in range(size)]
        self.executor.submit(Fork(tuple(child.executor for child in children)))
        self.run.observer(Forked(self, tuple(children)))
        return children

    def _child(self, path: tuple[int, ...]) -> "Branch":
        child = Branch(self.run, Executor(self.run, _folded(path), self.executor))
        child.variables = dict(self.variables)
        child.roles, child.open_role = self.roles, self.open_role
        child._has_text = self._has_text
        return child

    def _next_ordinal(self) -> int:
        self._ordinal += 1
        return self._ordinal - 1


def _folded(path: tuple[int, ...]) -> tuple[int, ...]:
    """The path itself, or a digest of a long one: a path is sent with every request."""
    if len(path) <= _MAX_PATH:
        return path
    digest = hashlib.blake2b(repr(path).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 1,)
