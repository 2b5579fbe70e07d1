"""Whether one given value fits a schema: for `enum`, `const` and the keys that `propertyNames`
allows. Knows no machine; `format` is judged by the caller's function."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from ..errors import GrammarError
from .constraints import Given, Term
from .document import Document, Place
from .formats import FORMATS
from .values import is_multiple


class Evaluator:
    """matches(kind, text, value): whether a string fits a pattern or format."""

    def __init__(self, document: Document, matches: Callable[[str, str, str], bool]) -> None:
        self._document = document
        self.matches = matches
        self._given: dict[Place, frozenset[Given]] = {}  # what `enum` and `const` leave

    def fits(self, value: object, term: Term) -> bool:
        for place, wanted in term:
            try:
                if self._holds(value, place) is not wanted:
                    return False
            except (TypeError, LookupError, AttributeError, ArithmeticError) as error:
                # It reads what it meets as if it were well formed.
                raise GrammarError(f"{place.pointer}: what it says is malformed") from error
        return True

    def _holds(self, value: Any, place: Place) -> bool:
        schema = place.schema
        if not isinstance(schema, dict):
            return schema is True
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            if keyword in schema:
                if not self._holds(value, self._document.resolve(place, keyword)):
                    return False
                if self._document.ref_stands_alone:
                    return True
        if "type" in schema and not _has_type(value, schema["type"]):
            return False
        if ("enum" in schema or "const" in schema) and not self._is_given(value, place, schema):
            return False
        if not schema.keys().isdisjoint(_OF_SCHEMAS) and not self._combined(value, place, schema):
            return False
        if isinstance(value, str):
            return self._string(value, schema)
        if isinstance(value, list):
            return self._array(value, place, schema)
        if isinstance(value, dict):
            return self._object(value, place, schema)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _number(Decimal(repr(value)), schema)
        return True

    def _is_given(self, value: object, place: Place, schema: dict[str, Any]) -> bool:
        known = self._given.get(place)
        if known is None:
            lists = [schema["enum"]] if "enum" in schema else []
            lists += [[schema["const"]]] if "const" in schema else []
            sets = (frozenset(map(Given, values)) for values in lists)
            known = self._given[place] = frozenset.intersection(*sets)
        return Given(value) in known

    def _combined(self, value: object, place: Place, schema: dict[str, Any]) -> bool:
        """What schemas made of schemas say."""
        if "not" in schema and self._holds(value, self._document.below(place, "not")):
            return False
        return (
            ("allOf" not in schema or all(self._branches(value, place, "allOf")))
            and ("anyOf" not in schema or any(self._branches(value, place, "anyOf")))
            and ("oneOf" not in schema or sum(self._branches(value, place, "oneOf")) == 1)
            and ("if" not in schema or self._conditional(value, place))
        )

    def _branches(self, value: object, place: Place, keyword: str) -> list[bool]:
        assert isinstance(place.schema, dict)
        count = len(place.schema[keyword])
        return [self._holds(value, self._document.below(place, keyword, i)) for i in range(count)]

    def _conditional(self, value: object, place: Place) -> bool:
        assert isinstance(place.schema, dict)
        holds = self._holds(value, self._document.below(place, "if"))
        keyword = "then" if holds else "else"
        return keyword not in place.schema or self._holds(
            value, self._document.below(place, keyword)
        )

    def _string(self, value: str, schema: dict[str, Any]) -> bool:
        return (
            schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
            and ("pattern" not in schema or self.matches("pattern", schema["pattern"], value))
            and (
                schema.get("format") not in FORMATS
                or self.matches("format", schema["format"], value)
            )
        )

    def _array(self, value: list[object], place: Place, schema: dict[str, Any]) -> bool:
        if "unevaluatedItems" in schema:
            place.refuse("unevaluatedItems", "it is not supported beside given values")
        below = self._document.below
        prefix_keyword = "prefixItems"
        rest_keyword = "items"
        if isinstance(schema.get("items"), list):
            prefix_keyword, rest_keyword = "items", "additionalItems"
        prefix = schema.get(prefix_keyword, ())
        for i, item in enumerate(value):
            if i < len(prefix):
                if not self._holds(item, below(place, prefix_keyword, i)):
                    return False
            elif rest_keyword in schema and not self._holds(item, below(place, rest_keyword)):
                return False
        if "contains" in schema:
            found = sum(self._holds(item, below(place, "contains")) for item in value)
            if not schema.get("minContains", 1) <= found <= schema.get("maxContains", found):
                return False
        if schema.get("uniqueItems") and len({*map(Given, value)}) < len(value):
            return False
        return bool(schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)))

    def _object(self, value: dict[str, object], place: Place, schema: dict[str, Any]) -> bool:
        if "unevaluatedProperties" in schema:
            place.refuse("unevaluatedProperties", "it is not supported beside given values")
        below = self._document.below
        if (
            not schema.get("minProperties", 0)
            <= len(value)
            <= schema.get("maxProperties", len(value))
        ):
            return False
        required = schema.get("required", ())
        if isinstance(required, list) and any(name not in value for name in required):
            return False
        for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
            for name, needs in schema.get(keyword, {}).items():
                if name not in value:
                    continue
                if isinstance(needs, list):
                    if any(need not in value for need in needs):
                        return False
                elif not self._holds(value, below(place, keyword, name)):
                    return False
        for name, each in value.items():
            if "propertyNames" in schema and not self._holds(name, below(place, "propertyNames")):
                return False
            spoken_of = name in schema.get("properties", ())
            if spoken_of and not self._holds(each, below(place, "properties", name)):
                return False
            for pattern in schema.get("patternProperties", ()):
                if self.matches("pattern", pattern, name):
                    spoken_of = True
                    if not self._holds(each, below(place, "patternProperties", pattern)):
                        return False
            if not spoken_of and "additionalProperties" in schema:
                if not self._holds(each, below(place, "additionalProperties")):
                    return False
        return True


_OF_SCHEMAS: Final = ("not", "allOf", "anyOf", "oneOf", "if")


def _has_type(value: object, declared: object) -> bool:
    names = declared if isinstance(declared, list) else [declared]
    return any(_is_type(value, name) for name in names)


def _is_type(value: object, name: object) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return name in ("integer", "number")
    return name == {
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
        type(None): "null",
    }.get(type(value))


def _number(value: Decimal, schema: dict[str, Any]) -> bool:
    def limit(keyword: str) -> Decimal | None:
        given = schema.get(keyword)
        is_number = isinstance(given, int | float) and not isinstance(given, bool)
        return Decimal(repr(given)) if is_number else None

    low, high = limit("minimum"), limit("maximum")
    above, under, step = (
        limit("exclusiveMinimum"),
        limit("exclusiveMaximum"),
        limit("multipleOf"),
    )
    if schema.get("exclusiveMinimum") is True:
        low, above = None, low
    if schema.get("exclusiveMaximum") is True:
        high, under = None, high
    return (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (under is None or value < under)
        and (step is None or is_multiple(value, step))
    )
