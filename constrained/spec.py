"""What the user asked for: frozen, hashable, picklable constraints; knows nothing of automata.

Constraints cross process borders and are cache keys, so they hold plain text only.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from .errors import GrammarError
from .regex_sets import check_syntax


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
            twice = next(option for option in options if options.count(option) > 1)
            raise GrammarError(f"option {twice!r} is given twice")


@dataclass(frozen=True)
class JsonSchema:
    """The output is JSON text that validates against `schema` (JSON text of a 2020-12 schema).

    Build it with `JsonSchema.of`, so that equal schemas are equal keys. The order of properties
    is kept: it is the order in which they are generated.
    """

    schema: str

    def __post_init__(self) -> None:
        if not isinstance(self.schema, str):
            raise GrammarError("JsonSchema holds JSON text; use JsonSchema.of for other values")

    @classmethod
    def of(cls, schema: Mapping[str, object] | str | bool) -> "JsonSchema":
        """A schema as a dict, a bool or JSON text; raises GrammarError where it is not JSON."""
        value = parse_json(schema) if isinstance(schema, str) else schema
        if not isinstance(value, Mapping | bool):
            raise GrammarError(f"a JSON schema is an object or a bool, not {value!r}")
        try:
            text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise GrammarError(f"the JSON schema is not JSON: {error}") from error
        return cls(text)


Constraint = Regex | Choice | JsonSchema


def parse_json(text: str) -> object:
    """`text` as a JSON value; NaN and Infinity are refused. Raises GrammarError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"the JSON schema is not JSON: {error}") from error


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
