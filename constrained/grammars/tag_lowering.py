"""From a tree of formats to states of a pushdown machine; knows no JSON.

Free text reads on until something ends it: the end of the tag around it, or the text with which
what follows it begins. That text is never part of free text: its first occurrence ends it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import GrammarError
from ..pushdown.builder import FINAL, Builder
from ..spec import JsonSchema, KeyOrder
from ..spec import Regex as RegexConstraint
from .formats import (
    Dispatch,
    Ebnf,
    Either,
    Format,
    FreeText,
    Regex,
    Repeated,
    Schema,
    Sequence,
    Tag,
    Text,
)
from .free_text import close_free_text


@dataclass(frozen=True)
class _Sequel:
    """What follows a format. start: its state; openings: the texts that begin it, each with the
    state after it, none if it may begin with others; ends: free text may stop before it at any
    time, as at the end of the whole text."""

    start: int
    openings: tuple[tuple[str, int], ...] = ()
    ends: bool = False

    @property
    def ends_free_text(self) -> bool:
        return self.ends or bool(self.openings)


AddEmbedded = Callable[[JsonSchema | RegexConstraint | Ebnf], int]
"""The rule of what is embedded in a tag."""


class TagLowering:
    """Lowers one structural tag. add: the rule of a constraint."""

    def __init__(self, builder: Builder, add: AddEmbedded) -> None:
        self._builder = builder
        self._add = add
        self._rules: dict[Format, int] = {}

    def lower(self, format: Format) -> int:
        return self._builder.rule(self._lower(format, _Sequel(FINAL, ends=True)).start)

    def _lower(self, format: Format, then: _Sequel) -> _Sequel:
        """The format, followed by `then`, as what follows another one."""
        match format:
            case Text(text):
                return self._text(text, then)
            case Schema() | Regex() | Ebnf():
                return _Sequel(self._builder.call(self._rule(format), then.start))
            case FreeText(excludes):
                start = self._builder.loop()
                self._free_text(start, {}, excludes, then)
                return _Sequel(start)
            case Sequence(elements):
                for element in reversed(elements):
                    then = self._lower(element, then)
                return then
            case Either(elements):
                return self._either([self._lower(element, then) for element in elements])
            case Repeated():
                return self._repeated(format, then)
            case Tag(begin, content, ends):
                inner = self._lower(content, self._either([self._text(end, then) for end in ends]))
                return self._text(begin, inner)
            case Dispatch():
                return self._dispatch(format, then)

    def _text(self, text: str, then: _Sequel) -> _Sequel:
        if not text:
            return then
        start = self._builder.text(text.encode(), then.start)
        return _Sequel(start, ((text, then.start),))

    def _rule(self, format: Schema | Regex | Ebnf) -> int:
        if format not in self._rules:
            self._rules[format] = self._make_rule(format)
        return self._rules[format]

    def _make_rule(self, format: Schema | Regex | Ebnf) -> int:
        match format:
            case Schema(schema, any_order):
                order: KeyOrder = "any" if any_order else "schema"
                return self._add(JsonSchema.of(schema, key_order=order))
            case Regex(pattern):
                return self._add(RegexConstraint(pattern))
            case Ebnf():
                return self._add(format)

    def _either(self, options: list[_Sequel]) -> _Sequel:
        start = self._builder.either([option.start for option in options])
        if not all(option.ends_free_text for option in options):
            return _Sequel(start)
        openings = tuple(opening for option in options for opening in option.openings)
        return _Sequel(start, openings, any(option.ends for option in options))

    def _repeated(self, format: Repeated, then: _Sequel) -> _Sequel:
        if format.at_most_one:
            inner = self._lower(format.content, then)
        else:
            loop = self._builder.loop()
            inner = self._lower(format.content, _Sequel(loop))
            self._builder.close_loop(loop, inner.start, then.start)
        return inner if format.at_least_one else self._either([inner, then])

    def _dispatch(self, format: Dispatch, then: _Sequel) -> _Sequel:
        start = self._builder.loop()
        after = _Sequel(start) if format.loop else then
        contents: dict[str, list[int]] = {}
        for rule in format.rules:
            found = self._lower(rule.content, after).start
            contents.setdefault(rule.pattern, []).append(found)
        self._free_text(start, contents, format.excludes, then)
        return _Sequel(start)

    def _free_text(
        self, start: int, contents: dict[str, list[int]], excludes: tuple[str, ...], then: _Sequel
    ) -> None:
        if not (then.ends_free_text or excludes):
            raise GrammarError(
                "nothing ends the free text: what follows it begins with no fixed text; "
                "say in 'excludes' what it does not hold"
            )
        ends: dict[str, list[int]] = {exclude: [] for exclude in excludes}
        ends |= contents
        for text, state in then.openings:
            ends[text] = [*ends.get(text, ()), state]
        anywhere = None if then.openings and not then.ends else then.start
        close_free_text(self._builder, start, ends, anywhere)
