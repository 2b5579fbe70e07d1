"""A graph as an indented tree of lines. Knows nothing of how the graph was found."""

from collections.abc import Iterator
from typing import assert_never

from . import graph as g

_WIDTH = 60  # characters of a text that are shown


def tree(graph: g.Graph) -> str:
    given = [
        parameter.name if parameter.value is None else f"{parameter.name}={short(parameter.value)}"
        for parameter in graph.parameters
    ]
    return "\n".join([f"program {graph.program}({', '.join(given)})", *_lines(graph.body, "")])


def short(text: str) -> str:
    """As Python writes it, cut in the middle where it is long."""
    if len(text) > _WIDTH:
        text = text[: _WIDTH * 2 // 3] + " ... " + text[-_WIDTH // 4 :]
    return repr(text)


def _lines(block: g.Block, indent: str) -> Iterator[str]:
    for at, vertex in enumerate(block):
        is_last = at == len(block) - 1
        yield f"{indent}{'└─ ' if is_last else '├─ '}{title(vertex)}"
        yield from _inner(vertex, indent + ("   " if is_last else "│  "))


def _inner(vertex: g.Vertex, indent: str) -> Iterator[str]:
    named = _named_blocks(vertex)
    if named is None:
        for block in g.blocks(vertex):
            yield from _lines(block, indent)
        return
    for at, (name, block) in enumerate(named):
        is_last = at == len(named) - 1
        yield f"{indent}{'└─ ' if is_last else '├─ '}{name}"
        yield from _lines(block, indent + ("   " if is_last else "│  "))


def _named_blocks(vertex: g.Vertex) -> list[tuple[str, g.Block]] | None:
    match vertex:
        case g.Fork():
            return [(f"branch {lane.label}", lane.body) for lane in vertex.lanes]
        case g.Alternatives():
            names = ["then", "else"] if len(vertex.cases) == 2 else []
            names += [f"case {at}" for at in range(len(names), len(vertex.cases))]
            shown = zip(names, vertex.cases, strict=True)
            return [(name, case) for name, case in shown if case]
        case _:
            return None


def title(vertex: g.Vertex) -> str:
    """One line about a vertex, without what is within it."""
    match vertex:
        case g.Constant(text):
            return f"text {short(text)}"
        case g.Argument(name, value):
            return f"argument {name}" + ("" if value is None else f" = {short(value)}")
        case g.Variable(name):
            return f"variable {name}"
        case g.Computed(source, volatile, unordered):
            why = volatile or unordered
            return f"computed {_flat(source)}" + (f" (differs by {why})" if why else "")
        case g.Generate(verb, name, options):
            settings = [
                f"{option.name}={_flat(option.source)}"
                for option in options
                if option.name != "name"
            ]
            return _words(verb, name, f"({', '.join(settings)})" if settings else "")
        case g.Choose(name, choices, source):
            shown = source if choices is None else " | ".join(map(short, choices))
            return _words("select", name, f"of {_flat(shown)}")
        case g.Media(kind, source):
            return f"{kind} {_flat(source)}"
        case g.Role(role):
            return role
        case g.RoleBegin(role):
            return f"{role} begins"
        case g.RoleEnd(role):
            return f"{role} ends"
        case g.VarScope(name):
            return f"scope {name}"
        case g.Loop(over):
            return f"loop {_flat(over)}"
        case g.Alternatives(test):
            return f"if {_flat(test)}"
        case g.Fork(_, name, size):
            return f"fork {name} ({_flat(size)})"
        case g.Join(_, name, mode):
            return f"join {name} ({mode})"
        case g.Read(name, in_turn):
            what = "wait for all" if name is None else f"wait for {name}"
            return what + (" (before the next branch's turn)" if in_turn else "")
        case g.Assign(name):
            return f"set {name}"
        case g.Call(program):
            return f"run {program}"
        case g.Escape(source):
            return f"unknown: the state is given to {_flat(source)}"
        case g.Return(source):
            return f"return {_flat(source)}"
        case _:
            assert_never(vertex)


def _words(*words: object) -> str:
    return " ".join(str(word) for word in words if word)


def _flat(source: str) -> str:
    source = " ".join(source.split())
    return source if len(source) <= _WIDTH else source[: _WIDTH - 3] + "..."
