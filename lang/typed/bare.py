"""How a whole output is written: texts without quotes, numbers with a way to end.

Owns: from a type's JSON schema to the constraint of an output that is nothing but one value of it.
Knows no types.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...runtime.protocol import Choice, Constraint, JsonSchema, Lark, Regex
from .texts import ANY_TEXT

# What may follow a number, as the sign that it is whole, and is cut off.
NUMBER_STOPS: Final = (" ", "\n")
_SAYS_NOTHING: Final = frozenset({"title", "description", "default", "examples", "deprecated"})
_TEXT_KEYWORDS: Final = frozenset({"type", "pattern", "minLength", "maxLength", "allOf"})
# Formats that say nothing, or nothing that the pattern beside them does not say.
_NO_MORE_THAN_TEXT: Final = frozenset({"path", "password", *(f"uuid{n}" for n in range(1, 9))})
# Where Python, Rust and ECMA 262 differ in what a pattern means, they agree on these characters.
_DIALECTS: Final = re.compile(r"\\[wWdDsSbB]|\(\?[a-z]*i")
_PLAIN: Final = r"[\t-\r -~]*"


@dataclass(frozen=True)
class Form:
    """`constraint` None: any text. `quoted`: the text is JSON; else what JSON would put in quotes.

    `stops`: stop strings of its own.
    """

    constraint: Constraint | None
    quoted: bool = True
    stops: tuple[str, ...] = ()


def form_of(schema: Mapping[str, Any], *, decimal: bool = False) -> Form:
    """`decimal`: it is a number written as a text. Raises ValueError for a pattern that is none."""
    texts = list(_texts(schema, schema))
    if None not in texts:
        return _bare([text for text in texts if text is not None], decimal)
    document = JsonSchema.of(schema, open_objects=False)
    if _is_number(schema, schema):
        grammar = f"start: value /[ \\n]*/\nvalue: %json {document.schema}\n"
        return Form(Lark(grammar), stops=NUMBER_STOPS)
    return Form(document)


def _bare(texts: "list[Choice | Regex]", decimal: bool) -> Form:
    if any(text == Regex(ANY_TEXT) for text in texts):
        return Form(None, quoted=False)
    if all(isinstance(text, Choice) for text in texts):
        options = (option for text in texts if isinstance(text, Choice) for option in text.options)
        return Form(Choice(tuple(dict.fromkeys(options))), quoted=False)
    pattern = "|".join(_pattern(text) for text in texts)
    if decimal:
        return Form(Regex(f"(?:{pattern})[ \\n]*"), quoted=False, stops=NUMBER_STOPS)
    return Form(Regex(pattern), quoted=False)


def _pattern(text: "Choice | Regex") -> str:
    return text.pattern if isinstance(text, Regex) else "|".join(map(re.escape, text.options))


def _texts(
    schema: Mapping[str, Any], document: Mapping[str, Any]
) -> "Iterator[Choice | Regex | None]":
    """The forms of its texts; None among them if a value may be no text, or one that only JSON
    schemas can say."""
    said = {key: value for key, value in schema.items() if key not in _SAYS_NOTHING}
    said.pop("$defs", None)
    if said.get("format") in _NO_MORE_THAN_TEXT:
        del said["format"]
    if said.keys() == {"$ref"}:
        yield from _texts(_resolved(said["$ref"], document), document)
    elif said.keys() == {"anyOf"}:
        for option in said["anyOf"]:
            yield from _texts(option, document)
    elif {"enum", "const"} & said.keys():
        options = said.get("enum", [said.get("const")])
        is_text = all(isinstance(option, str) for option in options)
        yield Choice(tuple(dict.fromkeys(options))) if is_text and options else None
    elif said.get("type") == "string" and said.keys() <= _TEXT_KEYWORDS:
        yield Regex(_text_pattern(said))
    else:
        yield None


def _resolved(reference: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
    name = reference.removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")
    found: Mapping[str, Any] = document["$defs"][name]
    return found


def _text_pattern(schema: Mapping[str, Any]) -> str:
    """All that the schema says of a text: the last of it reads, what is before looks ahead."""
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    checks = [_full(schema["pattern"])] if "pattern" in schema else []
    checks += [_full(other["pattern"]) for other in schema.get("allOf", ())]
    if high is not None or low:
        checks.append(rf"(?:[^\n]|\n){{{low},{'' if high is None else high}}}")
    if not checks:
        return ANY_TEXT
    *ahead, last = checks
    return "".join(rf"(?={check}\Z)" for check in ahead) + last


def _full(pattern: str) -> str:
    """The texts in which `pattern` is found, for matching in full."""
    whole = re.fullmatch(r"\^\(\?:(.*)\)\$", pattern, re.DOTALL)
    if whole is not None and _is_group(whole[1]):
        return f"(?:{whole[1]})"
    flags = re.match(r"\(\?([imsx]+)\)", pattern)  # Python wants them around what they are for
    if flags is not None:
        pattern = f"(?{flags[1]}:{pattern[flags.end() :]})"
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the pattern {pattern!r}: {error}") from error
    found = rf"{ANY_TEXT}(?:{pattern}){ANY_TEXT}"
    if _DIALECTS.search(pattern):
        found = rf"(?={_PLAIN}\Z){found}"
    # Python's $ looks over a line break at the end, other dialects' does not.
    return rf"(?!{ANY_TEXT}\n\Z){found}"


def _is_group(inner: str) -> bool:
    """Whether "(?:" + inner + ")" is one group: `a)|(?:b` is not."""
    try:
        re.compile(inner)
    except re.error:
        return False
    return True


def _is_number(schema: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    """Whether it allows numbers, and besides them only other values without parts."""
    types = set(_types(schema, document))
    return bool(types & {"integer", "number"}) and types <= {"integer", "number", "boolean", "null"}


def _types(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    if "anyOf" in schema:
        for option in schema["anyOf"]:
            yield from _types(option, document)
    elif "type" in schema and not {"enum", "const"} & schema.keys():
        yield schema["type"]
    else:
        yield "other"
