"""Comments that switch rules off: `# sapwood: ignore[SW003, SW004]`, or all: `# sapwood: ignore`.

Owns: which lines each holds for: those of the statement that it stands in, or, alone on its line,
of the next one.
"""

import io
import re
import tokenize
from dataclasses import dataclass
from typing import Final

_COMMENT: Final = re.compile(r"#\s*sapwood:\s*ignore\b\s*(?:\[([^\]]*)\])?")


@dataclass(frozen=True)
class Ignored:
    """codes: None stands for all of them. line: of the comment."""

    first: int
    last: int
    codes: frozenset[str] | None
    line: int

    def covers(self, line: int, code: str) -> bool:
        return self.first <= line <= self.last and (self.codes is None or code in self.codes)


def ignored_lines(source: str) -> list[Ignored]:
    """The comments of a file that parses."""
    found: list[Ignored] = []
    open_comments: list[tuple[int, frozenset[str] | None]] = []
    first: int | None = None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            match = _COMMENT.match(token.string)
            if match:
                open_comments.append((token.start[0], _codes(match[1])))
        elif token.type == tokenize.NEWLINE:
            begin = token.start[0] if first is None else first
            found += [Ignored(begin, token.end[0], codes, at) for at, codes in open_comments]
            open_comments, first = [], None
        elif token.type not in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT) and first is None:
            first = token.start[0]
    return found


def _codes(listed: str | None) -> frozenset[str] | None:
    if listed is None:
        return None
    return frozenset(code.strip() for code in listed.split(",") if code.strip())
