"""JSON strings: how characters are written between the quotes, and rules of constrained content."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from ..code_points import ALL, Ranges, complement, intersection, normalize
from ..errors import GrammarError, Unsupported
from ..limits import CompileLimits, Meter
from ..pushdown.builder import FINAL, Builder, Part
from ..pushdown.machine import DEAD, Machine
from ..pushdown.program import finish
from ..regexes.lower import add_search
from .constraints import Case, Matching
from .formats import FORMATS

# Written in the short form; the other control characters as \\u00xx.
_SHORT: Final = {
    0x22: b'\\"',
    0x5C: b"\\\\",
    8: b"\\b",
    9: b"\\t",
    10: b"\\n",
    12: b"\\f",
    13: b"\\r",
}
_FRAGMENT_LIMITS: Final = CompileLimits()
_CONTROL: Final[Ranges] = ((0, 0x1F),)
_RAW: Final[Ranges] = complement(normalize([(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C)]))


def write_character(builder: Builder, ranges: Ranges, then: int) -> int:
    """One character of a set, in the one way that `json.dumps(ensure_ascii=False)` writes it."""
    raw, escapes = _parts(ranges)
    if not escapes:
        return builder.character(raw, then)
    states = [builder.one_of(escapes, then)]
    return builder.either([builder.character(raw, then), *states] if raw else states)


@lru_cache(maxsize=4096)
def _parts(ranges: Ranges) -> tuple[Ranges, tuple[bytes, ...]]:
    """What is written as it is, and the escapes of the rest."""
    raw = intersection(ranges, _RAW)
    escapes = [text for code, text in _SHORT.items() if intersection(ranges, ((code, code),))]
    for low, high in intersection(ranges, _CONTROL):
        escapes += [b"\\u%04x" % code for code in range(low, high + 1) if code not in _SHORT]
    return raw, tuple(escapes)


def written(text: str) -> bytes:
    """The content of the JSON string `text`, as `write_character` writes it."""
    return b"".join(
        _SHORT.get(ord(c)) or (b"\\u%04x" % ord(c) if c < " " else c.encode()) for c in text
    )


class Strings:
    """The rules of one machine; equal constraints share one."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._rules: dict[object, int] = {}
        self._plain: set[int] = set()  # those that read each character in one way only

    def any_character(self) -> int:
        """The rule of one character in any spelling, a surrogate pair being one."""
        return self._rule("character", lambda: self._any_character(FINAL))

    def any_content(self) -> int:
        """The rule of any content."""

        def start() -> int:
            loop = self._builder.loop()
            return self._builder.close_loop(loop, self._any_character(loop), FINAL)

        return self._rule("content", start)

    def plain_content(self) -> int:
        """The rule of any content, each character written in one way."""

        def start() -> int:
            loop = self._builder.loop()
            return self._builder.close_loop(loop, write_character(self._builder, ALL, loop), FINAL)

        return self._rule("plain content", start)

    def content(self, case: Case) -> int:
        """The rule of the content that a case allows."""
        parts = [Part(self._match(m), not m.wanted) for m in case.matching]
        low, high = case.length
        if low or high is not None:
            parts.append(Part(self._length(low, high)))
        others = tuple(o.value for o in case.others if isinstance(o.value, str))
        if others:
            parts.append(Part(self.one_of(others), negated=True))
        return self.product(parts)

    def product(self, parts: list[Part]) -> int:
        """The rule of the contents that all parts agree on."""
        # What a part does not read it must not read in another spelling either.
        is_plain = any(not part.negated and part.rule in self._plain for part in parts)
        if any(part.negated for part in parts) and not is_plain:
            parts = [Part(self.plain_content()), *parts]
        if not parts:
            return self.any_content()
        if len(parts) == 1:
            return parts[0].rule
        key = ("product", *parts)
        return self._rule(key, lambda: self._builder.product(parts, FINAL))

    def pattern(self, text: str, pointer: str, *, wanted: bool) -> Part:
        """The contents in which a regex is found, or is not."""
        return Part(self._match(Matching("pattern", text, wanted, pointer)), negated=not wanted)

    def one_of(self, texts: tuple[str, ...]) -> int:
        rule = self._rule(texts, lambda: self._builder.one_of(map(written, texts), FINAL))
        self._plain.add(rule)
        return rule

    def quoted(self, content: int, then: int) -> int:
        """The state that reads a string with the content of a rule."""
        builder = self._builder
        return builder.text(b'"', builder.call(content, builder.text(b'"', then)))

    def _any_character(self, then: int) -> int:
        builder = self._builder

        def hex_digits(first: bytes, count: int) -> int:
            state = then
            for _ in range(count):
                state = builder.state(((48, 57, state), (65, 70, state), (97, 102, state)))
            return builder.one_of({first.lower(), first.upper()}, state) if first else state

        # Any four digits but d800 to dfff; those only as a high half and a low half.
        low_half = builder.state(tuple((b, b, hex_digits(b"", 2)) for b in b"CDEFcdef"))
        low_half = builder.text(b"\\u", builder.one_of((b"D", b"d"), low_half))
        halves = low_half
        for _ in range(2):
            halves = builder.state(((48, 57, halves), (65, 70, halves), (97, 102, halves)))
        halves = builder.state(tuple((b, b, halves) for b in b"89ABab"))
        three, two = hex_digits(b"", 3), hex_digits(b"", 2)
        after_d = builder.either([builder.state(((48, 55, two),)), halves])
        other = builder.state(
            ((48, 57, three), (65, 67, three), (69, 70, three), (97, 99, three), (101, 102, three))
        )
        code = builder.either([other, builder.one_of((b"D", b"d"), after_d)])
        escape = builder.either(
            [builder.one_of((bytes([c]) for c in b'"\\/bfnrt'), then), builder.text(b"u", code)]
        )
        return builder.either([builder.character(_RAW, then), builder.text(b"\\", escape)])

    def _length(self, low: int, high: int | None) -> int:
        def start() -> int:
            return self._builder.repeat(self.any_character(), low, high, FINAL)

        return self._rule(("length", low, high), start)

    def _match(self, matching: Matching) -> int:
        key = (matching.kind, matching.text, matching.wanted)

        def start() -> int:
            return self._builder.call(self._told(matching), FINAL)

        rule = self._rule(key, start)
        self._plain.add(rule)
        return rule

    def _told(self, matching: Matching) -> int:
        try:
            return self._builder.include(
                *fragment(matching.kind, matching.text, narrow=matching.wanted)
            )
        except GrammarError as error:
            raise type(error)(f"{matching.pointer}: {error}") from error

    def _rule(self, key: object, start: Callable[[], int]) -> int:
        rule = self._rules.get(key)
        if rule is None:
            rule = self._rules[key] = self._builder.rule(start())
        return rule


@lru_cache(maxsize=512)
def fragment(kind: str, text: str, *, narrow: bool) -> tuple[Builder, int]:
    """The rule of a pattern or format, in a builder of its own: schemas have the same ones again
    and again. narrow: of what validators read differently, only what all of them find."""
    builder = Builder(Meter(_FRAGMENT_LIMITS))
    if kind == "pattern":
        found = add_search(builder, text, write_character, ALL, narrow=narrow)
        return builder, builder.rule(found)
    whole = [add_search(builder, f"^({r})$", write_character, ALL) for r in FORMATS[text]]
    parts = [Part(builder.rule(state)) for state in whole]
    return builder, builder.rule(builder.product(parts, FINAL))


def matches(kind: str, text: str, value: str) -> bool:
    """Whether a pattern is found in a string, or it has a format; never runs on as `re` may.

    Raises Unsupported where validators differ over it.
    """
    found = _reads(_machine(kind, text, narrow=True), value)
    if kind == "pattern" and not found and _reads(_machine(kind, text, narrow=False), value):
        raise Unsupported(f"the pattern {text!r} and {value!r}: validators differ over them")
    return found


def _reads(machine: Machine, value: str) -> bool:
    here = machine.start
    for byte in written(value):
        if here == DEAD:
            return False
        here = machine.step(here, byte)
    return here != DEAD and machine.accepting(here)


@lru_cache(maxsize=128)
def _machine(kind: str, text: str, *, narrow: bool) -> Machine:
    return Machine(finish(*fragment(kind, text, narrow=narrow)))
