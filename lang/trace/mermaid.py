"""A graph as a Mermaid flowchart. Knows nothing of how the graph was found."""

from . import graph as g
from .tree import title

_SHAPES = {  # opening and closing bracket of a box
    g.Generate: ("([", "])"),
    g.Choose: ("{{", "}}"),
    g.Alternatives: ("{", "}"),
    g.Fork: ("[/", "\\]"),
    g.Join: ("[\\", "/]"),
    g.Read: (">", "]"),
}
_Tails = list[str]  # the boxes that the next one follows


def flowchart(graph: g.Graph) -> str:
    chart = _Chart()
    tails = chart.box("start", ("([", "])"), f"program {graph.program}", [])
    chart.block(graph.body, tails)
    return "\n".join(["flowchart TD", *chart.lines, *chart.edges, ""])


class _Chart:
    def __init__(self) -> None:
        self.lines: list[str] = []
        # Apart: an edge that stood in a subgraph would draw both its ends into it.
        self.edges: list[str] = []
        self._num_boxes = 0
        self._lane_tails: dict[int, _Tails] = {}  # of a fork, until its join takes them

    def block(self, block: g.Block, tails: _Tails) -> _Tails:
        for vertex in block:
            tails = self._vertex(vertex, tails)
        return tails

    def _vertex(self, vertex: g.Vertex, tails: _Tails) -> _Tails:
        match vertex:
            case g.Role() | g.VarScope() | g.Loop():
                return self._scope(vertex, tails)
            case g.Alternatives(_, cases):
                begin = self._own_box(vertex, tails)
                ends = [self.block(case, begin) for case in cases]
                return list(dict.fromkeys(tail for end in ends for tail in end)) or begin
            case g.Fork(group, _, _, lanes):
                begin = self._own_box(vertex, tails)
                for lane in lanes:
                    end = self.block(lane.body, self.box(None, ("(", ")"), lane.label, begin))
                    self._lane_tails.setdefault(group, []).extend(end)
                return begin
            case g.Join(group):
                return self._own_box(vertex, [*tails, *self._lane_tails.pop(group, [])])
            case _:
                return self._own_box(vertex, tails)

    def _scope(self, vertex: g.Role | g.VarScope | g.Loop, tails: _Tails) -> _Tails:
        self._num_boxes += 1
        self.lines.append(f"subgraph n{self._num_boxes}[{_quoted(title(vertex))}]")
        # A scope without a box of its own would not be drawn.
        tails = self.block(vertex.body, tails) if vertex.body else self._own_box(vertex, tails)
        self.lines.append("end")
        return tails

    def _own_box(self, vertex: g.Vertex, tails: _Tails) -> _Tails:
        return self.box(None, _SHAPES.get(type(vertex), ("[", "]")), title(vertex), tails)

    def box(self, name: str | None, shape: tuple[str, str], text: str, tails: _Tails) -> _Tails:
        if name is None:
            self._num_boxes += 1
            name = f"n{self._num_boxes}"
        self.lines.append(f"{name}{shape[0]}{_quoted(text)}{shape[1]}")
        self.edges += [f"{tail} --> {name}" for tail in tails]
        return [name]


def _quoted(text: str) -> str:
    escapes = {"#": "#35;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;"}
    return '"' + "".join(escapes.get(char, char) for char in text) + '"'
