"""Structural tags: from their JSON text to a tree of formats; knows nothing of automata.

Two forms are read. SGLang's older one lists tags and their triggers:
`{"type": "structural_tag", "structures": [{"begin", "schema", "end"}...], "triggers": [...]}`.
That of XGrammar holds a tree: `{"type": "structural_tag", "format": {"type": ..., ...}}`, of types
const_string, json_schema, regex, grammar, any_text, sequence, or, optional, star, plus, tag,
triggered_tags, tags_with_separator and dispatch. Other types and keys are refused by name.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from ..errors import GrammarError, Unsupported
from .formats import (
    Dispatch,
    Ebnf,
    Either,
    Format,
    FreeText,
    Regex,
    Repeated,
    Rule,
    Schema,
    Sequence,
    Tag,
    Text,
)
from .scan import MAX_DEPTH


def parse(text: str) -> Format:
    """The format that a structural tag says; raises GrammarError with the path of what is wrong."""
    tag = _Fields(parse_json(text), "")
    if tag.text("type") != "structural_tag":
        tag.fail("type", "a structural tag has the type 'structural_tag'")
    if tag.has("structures"):
        found = _legacy(tag)
    else:
        found = _format(tag.fields("format"), 0)
    tag.finish()
    return found


def parse_json(text: str) -> object:
    """`text` as a JSON value; NaN and Infinity are refused. Raises GrammarError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"the structural tag is not JSON: {error}") from error


def json_text(value: object) -> str:
    """The same text for equal values with the same order of keys, which counts in a schema."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class _Fields:
    """A JSON object, of which each key is asked for or, in the end, unknown."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            raise GrammarError(f"{path or 'the structural tag'}: an object is expected")
        self._value = value
        self._path = path
        self._asked: set[str] = set()

    def path(self, key: str | int) -> str:
        return f"{self._path}/{key}"

    def fail(self, key: str, message: str) -> NoReturn:
        raise GrammarError(f"{self.path(key)}: {message}")

    def refuse(self, key: str, message: str) -> NoReturn:
        raise Unsupported(f"{self.path(key)}: {message}")

    def finish(self) -> None:
        """Refuses keys that were not asked for."""
        for key in self._value:
            if key not in self._asked:
                self.refuse(str(key), "this key is not supported")

    def has(self, key: str) -> bool:
        return key in self._value

    def value(self, key: str) -> object:
        self._asked.add(key)
        if key not in self._value:
            self.fail(key, "this key is missing")
        return self._value[key]

    def text(self, key: str, default: str | None = None) -> str:
        if default is not None and not self.has(key):
            return default
        value = self.value(key)
        if not isinstance(value, str):
            self.fail(key, "a string is expected")
        return self._whole(key, value)

    def flag(self, key: str) -> bool:
        if not self.has(key):
            return False
        value = self.value(key)
        if not isinstance(value, bool):
            self.fail(key, "true or false is expected")
        return value

    def items(self, key: str) -> list[object]:
        value = self.value(key)
        if not isinstance(value, list):
            self.fail(key, "a list is expected")
        return value

    def texts(self, key: str, *, may_be_empty: bool = False) -> tuple[str, ...]:
        found = []
        for number, text in enumerate(self.items(key)):
            if not isinstance(text, str) or not (text or may_be_empty):
                self.fail(f"{key}/{number}", "a string that is not empty is expected")
            found.append(self._whole(key, text))
        return tuple(found)

    def _whole(self, key: str, text: str) -> str:
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            self.fail(key, "half a surrogate pair")
        return text

    def optional_texts(self, key: str) -> tuple[str, ...]:
        return self.texts(key) if self.has(key) else ()

    def fields(self, key: str) -> "_Fields":
        return _Fields(self.value(key), self.path(key))

    def each(self, key: str) -> list["_Fields"]:
        """A list of objects, at least one."""
        found = [
            _Fields(value, f"{self.path(key)}/{number}")
            for number, value in enumerate(self.items(key))
        ]
        if not found:
            self.fail(key, "at least one is expected")
        return found

    def schema(self, key: str) -> str:
        value = self.value(key)
        if isinstance(value, str):
            value = parse_json(value)
        if not isinstance(value, Mapping | bool):
            self.fail(key, "a JSON schema is an object or a bool")
        return json_text(value)


def _legacy(tag: _Fields) -> Format:
    tags = []
    for structure in tag.each("structures"):
        schema = Schema(structure.schema("schema"))
        tags.append(Tag(structure.text("begin"), schema, (structure.text("end"),)))
        structure.finish()
    return _triggered(tag, tuple(tags), (), stop_after_first=False)


def _format(fields: _Fields, depth: int) -> Format:
    if depth == MAX_DEPTH:
        raise GrammarError(f"formats are nested more than {MAX_DEPTH} deep")
    kind = fields.text("type")
    if kind not in _READERS:
        fields.refuse("type", f"the format {kind!r} is not supported")
    found = _READERS[kind](fields, depth + 1)
    fields.finish()
    return found


def _const_string(fields: _Fields, depth: int) -> Format:
    return Text(fields.text("value"))


def _json_schema(fields: _Fields, depth: int) -> Format:
    style = fields.text("style", "json")
    if style != "json":
        fields.refuse("style", f"the style {style!r} is not supported")
    return Schema(fields.schema("json_schema"), fields.flag("any_order"))


def _regex(fields: _Fields, depth: int) -> Format:
    return Regex(fields.text("pattern"))


def _grammar(fields: _Fields, depth: int) -> Format:
    return Ebnf(fields.text("grammar"))


def _any_text(fields: _Fields, depth: int) -> Format:
    return FreeText(fields.optional_texts("excludes"))


def _elements(fields: _Fields, depth: int) -> tuple[Format, ...]:
    return tuple(_format(element, depth) for element in fields.each("elements"))


def _sequence(fields: _Fields, depth: int) -> Format:
    return Sequence(_elements(fields, depth))


def _or(fields: _Fields, depth: int) -> Format:
    return Either(_elements(fields, depth))


def _content(fields: _Fields, depth: int) -> Format:
    return _format(fields.fields("content"), depth)


def _optional(fields: _Fields, depth: int) -> Format:
    return Repeated(_content(fields, depth), at_least_one=False, at_most_one=True)


def _star(fields: _Fields, depth: int) -> Format:
    return Repeated(_content(fields, depth), at_least_one=False, at_most_one=False)


def _plus(fields: _Fields, depth: int) -> Format:
    return Repeated(_content(fields, depth), at_least_one=True, at_most_one=False)


def _tag(fields: _Fields, depth: int) -> Tag:
    for key in ("begin", "end"):
        if isinstance(fields.value(key), Mapping):
            fields.refuse(key, "a token is not supported")
    if isinstance(fields.value("end"), list):
        ends = tuple(dict.fromkeys(fields.texts("end", may_be_empty=True)))
        if not ends:
            fields.fail("end", "at least one is expected")
    else:
        ends = (fields.text("end"),)
    return Tag(fields.text("begin"), _content(fields, depth), ends)


def _tags(fields: _Fields, depth: int) -> tuple[Tag, ...]:
    found = []
    for tag in fields.each("tags"):
        if tag.text("type", "tag") != "tag":
            tag.fail("type", "a tag is expected")
        found.append(_tag(tag, depth + 1))
        tag.finish()
    return tuple(found)


def _triggered_tags(fields: _Fields, depth: int) -> Format:
    tags = _tags(fields, depth)
    at_least_one, stop = fields.flag("at_least_one"), fields.flag("stop_after_first")
    free = _triggered(fields, tags, fields.optional_texts("excludes"), stop_after_first=stop)
    if not at_least_one:
        return free
    return Either(tags) if stop else Sequence((Either(tags), free))


def _triggered(
    fields: _Fields, tags: tuple[Tag, ...], excludes: tuple[str, ...], *, stop_after_first: bool
) -> Format:
    """Free text, in which after a trigger one of the tags that begin with it goes on."""
    triggers = fields.texts("triggers")
    rules = []
    for number, trigger in enumerate(triggers):
        begun = [tag for tag in tags if tag.begin.startswith(trigger)]
        if not begun:
            fields.fail(f"triggers/{number}", f"no tag begins with {trigger!r}")
        rest = (Tag(tag.begin.removeprefix(trigger), tag.content, tag.ends) for tag in begun)
        rules.append(Rule(trigger, Either(tuple(rest))))
    for tag in tags:
        if not tag.begin.startswith(triggers):
            fields.fail("triggers", f"no trigger begins the tag {tag.begin!r}")
    return Dispatch(tuple(rules), excludes, loop=not stop_after_first)


def _tags_with_separator(fields: _Fields, depth: int) -> Format:
    one = Either(_tags(fields, depth))
    separator = Text(fields.text("separator"))
    at_least_one, stop = fields.flag("at_least_one"), fields.flag("stop_after_first")
    more = Repeated(Sequence((separator, one)), at_least_one=False, at_most_one=False)
    some: Format = one if stop else Sequence((one, more))
    return some if at_least_one else Repeated(some, at_least_one=False, at_most_one=True)


def _dispatch(fields: _Fields, depth: int) -> Format:
    rules = []
    for number, pair in enumerate(fields.items("rules")):
        path = f"rules/{number}"
        if not (isinstance(pair, list) and len(pair) == 2):
            fields.fail(path, "a pair of a pattern and a format is expected")
        content = _format(_Fields(pair[1], fields.path(f"{path}/1")), depth)
        if not isinstance(pair[0], str) or not pair[0]:
            fields.fail(path, "a pattern is a string that is not empty")
        rules.append(Rule(pair[0], content))
    loop = fields.flag("loop") if fields.has("loop") else True
    return Dispatch(tuple(rules), fields.optional_texts("excludes"), loop)


_READERS: Final[Mapping[str, Callable[[_Fields, int], Format]]] = {
    "const_string": _const_string,
    "json_schema": _json_schema,
    "regex": _regex,
    "grammar": _grammar,
    "any_text": _any_text,
    "sequence": _sequence,
    "or": _or,
    "optional": _optional,
    "star": _star,
    "plus": _plus,
    "tag": _tag,
    "triggered_tags": _triggered_tags,
    "tags_with_separator": _tags_with_separator,
    "dispatch": _dispatch,
}
