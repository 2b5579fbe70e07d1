"""How JSON is laid out: the whitespace of a style, and how scalars are spelled."""

import json
from decimal import Decimal
from typing import Final

from ..code_points import Ranges
from ..pushdown.builder import FINAL, Builder
from ..spec import Whitespace

_MOST_INDENT: Final = 24
_encode: Final = json.JSONEncoder(ensure_ascii=False).encode
_BLANKS: Final[Ranges] = ((9, 9), (32, 32))


class Spacing:
    """Of one machine.

    See `JsonSchema`. "spaced" is what models write on one line, it cannot run on, and it leaves
    every key and bracket forced; "printed" leaves each key forced with its colon.
    """

    def __init__(self, builder: Builder, whitespace: Whitespace, *, integer_fraction: bool) -> None:
        self.style: Final = whitespace
        self._builder = builder
        self._integer_fraction = integer_fraction
        self._is_free = whitespace == "flexible"
        self._lines = whitespace in ("printed", "flexible")
        self._blank_rule = self._add_blank() if self._lines else -1
        self.comma: Final = builder.rule(self._sign(b",", FINAL))
        self._colon = builder.rule(self._sign(b":", FINAL)) if self._is_free else -1

    def open(self, builder: Builder, bracket: bytes, then: int) -> int:
        return builder.text(bracket, self._blank(then))

    def close(self, builder: Builder, bracket: bytes, then: int) -> int:
        return self._blank(builder.text(bracket, then))

    def colon(self, builder: Builder, then: int) -> int:
        return builder.call(self._colon, then) if self._is_free else self._sign(b":", then)

    def quoted(self, text: str) -> bytes:
        return _encode(text).encode()

    def spellings(self, value: object) -> list[bytes]:
        """A scalar that is no string, as it may be written."""
        texts = [json.dumps(value)]
        if isinstance(value, int | float) and not isinstance(value, bool):
            exact = Decimal(repr(value))
            if abs(exact) < 10**21 and exact % 1 == 0:
                texts = [str(int(exact))]
                if self._integer_fraction:
                    texts.append(f"{int(exact)}.0")
        return [text.encode() for text in texts]

    def _sign(self, sign: bytes, then: int) -> int:
        """A comma or a colon, with the blanks around it."""
        builder = self._builder
        if self._is_free:
            return self._blank(builder.text(sign, self._blank(then)))
        if self.style == "compact":
            return builder.text(sign, then)
        space = builder.text(b" ", then)
        if self._lines and sign == b",":
            space = builder.either([space, self._line_break(then)])
        return builder.text(sign, space)

    def _blank(self, then: int) -> int:
        return self._builder.call(self._blank_rule, then) if self._lines else then

    def _add_blank(self) -> int:
        builder = self._builder
        return builder.rule(
            builder.either([builder.text(b" ", FINAL), self._line_break(FINAL), FINAL])
        )

    def _line_break(self, then: int) -> int:
        """A line break and an indent."""
        builder = self._builder
        indent = builder.rule(builder.character(_BLANKS, FINAL))
        line = builder.text(b"\n", builder.repeat(indent, 0, _MOST_INDENT, then))
        return builder.either([line, builder.text(b"\r", line)])
