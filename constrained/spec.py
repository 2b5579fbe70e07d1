"""What the user asked for: frozen, hashable, picklable constraints; knows nothing of automata.

Constraints cross process borders and are cache keys, so they hold plain text only.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, get_args

from .errors import GrammarError
from .grammars import gbnf, lark, tags
from .regexes.syntax import check_syntax

Whitespace = Literal["spaced", "compact", "printed", "flexible"]
KeyOrder = Literal["schema", "any"]
WHITESPACE: Final = get_args(Whitespace)
KEY_ORDERS: Final = get_args(KeyOrder)


@dataclass(frozen=True)
class Regex:
    """The whole output matches `pattern`: Python `re` syntax and meaning, as by `re.fullmatch`."""

    pattern: str

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str):
            raise GrammarError(f"a regex is a string, not {type(self.pattern).__name__}")

    def check(self) -> None:
        """Raises GrammarError where `re` refuses the pattern or would warn of it. Quick: what only
        compiling finds (Unsupported, LimitExceeded) it does not."""
        check_syntax(self.pattern)


@dataclass(frozen=True)
class Choice:
    """The output is exactly one of `options` (at least one, no duplicates)."""

    options: tuple[str, ...]

    def __post_init__(self) -> None:
        given: object = self.options
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise GrammarError(f"options of a choice are a sequence of strings, not {given!r}")
        options = tuple(given)
        object.__setattr__(self, "options", options)
        if not options:
            raise GrammarError("a choice needs at least one option")
        for option in options:
            if not isinstance(option, str):
                raise GrammarError(f"an option is a string, not {option!r}")
        if len(set(options)) != len(options):
            ((twice, _),) = Counter(options).most_common(1)
            raise GrammarError(f"option {twice!r} is given twice")


@dataclass(frozen=True)
class JsonSchema:
    """The output is JSON text that validates against `schema` (JSON text; drafts 4 to 2020-12).

    Build it with `JsonSchema.of`, so that equal schemas are equal keys.

    whitespace: "spaced", one space after each ',' and ':' and nowhere else, as `json.dumps` writes
    it; "compact", none; "printed", as printers lay it out on one line or many: a space after each
    ':', a space or a line break and an indent after each ',', none before these, either or none
    inside brackets; "flexible", between any two signs nothing, a space, or a line break and an
    indent. key_order: "schema", properties in the schema's order, others after them; "any".
    integer_fraction: 1.0 may be written for the integer 1. open_objects: whether others may come
    where a schema lists properties and says nothing of others; JSON Schema itself lets them.
    """

    schema: str
    whitespace: Whitespace = "spaced"
    key_order: KeyOrder = "schema"
    integer_fraction: bool = False
    open_objects: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.schema, str):
            raise GrammarError("JsonSchema holds JSON text; use JsonSchema.of for other values")
        for name, allowed in (("whitespace", WHITESPACE), ("key_order", KEY_ORDERS)):
            if getattr(self, name) not in allowed:
                raise GrammarError(f"{name} is one of {allowed}, not {getattr(self, name)!r}")
        for name in ("integer_fraction", "open_objects"):
            if not isinstance(getattr(self, name), bool):
                raise GrammarError(f"{name} is a bool, not {getattr(self, name)!r}")

    @classmethod
    def of(
        cls,
        schema: Mapping[str, object] | str | bool,
        *,
        whitespace: Whitespace = "spaced",
        key_order: KeyOrder = "schema",
        integer_fraction: bool = False,
        open_objects: bool = True,
    ) -> "JsonSchema":
        """A schema as a dict, a bool or JSON text; raises GrammarError where it is not JSON."""
        value = parse_json(schema) if isinstance(schema, str) else schema
        if not isinstance(value, Mapping | bool):
            raise GrammarError(f"a JSON schema is an object or a bool, not {value!r}")
        try:
            text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise GrammarError(f"the JSON schema is not JSON: {error}") from error
        return cls(text, whitespace, key_order, integer_fraction, open_objects)


@dataclass(frozen=True)
class Ebnf:
    """The output is a text of rule `root` of a grammar in GBNF, see `gbnf`."""

    text: str

    def __post_init__(self) -> None:
        _refuse_other_than_text(self.text, "an EBNF grammar")

    def check(self) -> None:
        """Raises GrammarError where it is no grammar. Quick: what only compiling finds (a limit, a
        schema or regex within that we do not honour) it does not."""
        gbnf.parse(self.text)


@dataclass(frozen=True)
class Lark:
    """The output is a text of rule `start` of a grammar in the notation of Lark, see `lark`."""

    text: str

    def __post_init__(self) -> None:
        _refuse_other_than_text(self.text, "a Lark grammar")

    def check(self) -> None:
        """As that of `Ebnf`."""
        lark.parse(self.text)


@dataclass(frozen=True)
class StructuralTag:
    """The output is free text with constrained parts, as a structural tag (JSON text) says.

    Build it with `StructuralTag.of`, so that equal tags are equal keys.
    """

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise GrammarError("StructuralTag holds JSON text; use StructuralTag.of for a mapping")

    @classmethod
    def of(cls, tag: Mapping[str, object] | str) -> "StructuralTag":
        """A structural tag as a dict or JSON text; raises GrammarError where it is not JSON."""
        value = tags.parse_json(tag) if isinstance(tag, str) else tag
        if not isinstance(value, Mapping):
            raise GrammarError(f"a structural tag is an object, not {value!r}")
        try:
            return cls(tags.json_text(value))
        except (TypeError, ValueError, RecursionError) as error:
            raise GrammarError(f"the structural tag is not JSON: {error}") from error

    def check(self) -> None:
        """As that of `Ebnf`."""
        tags.parse(self.text)


@dataclass(frozen=True)
class Union:
    """The output satisfies at least one of `options` (one at least)."""

    options: tuple["Constraint", ...]

    def __post_init__(self) -> None:
        given: object = self.options
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise GrammarError(f"options of a union are a sequence of constraints, not {given!r}")
        options = tuple(given)
        object.__setattr__(self, "options", options)
        if not options:
            raise GrammarError("a union needs at least one option")
        for option in options:
            if not isinstance(option, Constraint):
                raise GrammarError(f"an option of a union is a constraint, not {option!r}")

    def check(self) -> None:
        """Checks each option."""
        for option in self.options:
            if not isinstance(option, Choice | JsonSchema):
                option.check()


GrammarConstraint = Ebnf | Lark | StructuralTag | Union
Constraint = Regex | Choice | JsonSchema | GrammarConstraint


def _refuse_other_than_text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise GrammarError(f"{what} is a string, not {type(text).__name__}")


def parse_json(text: str) -> object:
    """`text` as a JSON value; NaN and Infinity are refused. Raises GrammarError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"the JSON schema is not JSON: {error}") from error


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


REGEX_INT: Final = r"[-+]?[0-9]+[ \n]*"
REGEX_FLOAT: Final = r"[-+]?[0-9]*\.?[0-9]+[ \n]*"
REGEX_BOOL: Final = r"(True|False)"
# Wider than the word characters and blanks of SGLang's constant: any text in double quotes, with
# JSON's escapes. \u is left out, for it could spell half a surrogate pair.
REGEX_STR: Final = r'"([^"\\\x00-\x1f\x7f]|\\["\\/bfnrt])*"'

_DTYPES: Final = {"int": REGEX_INT, "float": REGEX_FLOAT, "bool": REGEX_BOOL, "str": REGEX_STR}


def dtype_constraint(dtype: type | str) -> Regex:
    """The regex of `int`, `float`, `bool` or `str`, given as the type or its name.

    int, float and bool are SGLang's constants; str is any double-quoted text with JSON escapes.
    """
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", repr(dtype))
    if name not in _DTYPES:
        raise GrammarError(f"dtype is one of int, float, bool, str, not {dtype!r}")
    return Regex(_DTYPES[name])
