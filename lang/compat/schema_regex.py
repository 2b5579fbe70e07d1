"""`build_regex_from_object`: a JSON schema as one regex, as far as that is possible.

Owns: the translation of schemas without recursion. `gen(json_schema=...)` takes the schema itself,
whole: this is for programs that want the regex.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from ...runtime.errors import InvalidRequest

_STRING: Final = r'([^"\\\x00-\x1f]|\\(["\\/bfnrt]|u[0-9a-fA-F]{4}))'
_INTEGER: Final = r"(-)?(0|[1-9][0-9]*)"
_NUMBER: Final = rf"({_INTEGER})(\.[0-9]+)?([eE][+-][0-9]+)?"
_BLANK: Final = "[ ]?"
_MAX_DEPTH: Final = 32


def build_regex_from_object(
    object: str | Mapping[str, Any] | type, whitespace_pattern: str | None = None
) -> str:
    """The regex of the JSON texts that fit a pydantic model or a JSON schema.

    Properties come in the schema's order, all of them where required; `whitespace_pattern` stands
    between tokens, one blank or none by default. Raises InvalidRequest for a schema that refers to
    itself, or says something that has no place here.
    """
    schema = _schema(object)
    blank = _BLANK if whitespace_pattern is None else whitespace_pattern
    return _Translation(schema, blank).regex(schema, 0)


def _schema(given: Any) -> Mapping[str, Any]:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise InvalidRequest(f"object: not JSON: {error}", field="object") from None
    elif callable(getattr(given, "model_json_schema", None)):
        given = given.model_json_schema()
    if not isinstance(given, Mapping):
        raise InvalidRequest(
            f"object: {given!r} is neither a pydantic model nor a JSON schema", field="object"
        )
    return given


class _Translation:
    def __init__(self, root: Mapping[str, Any], blank: str) -> None:
        self._root = root
        self._blank = blank
        self._by_type: dict[str, Callable[[Mapping[str, Any], int], str]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": lambda schema, depth: _INTEGER,
            "number": lambda schema, depth: _NUMBER,
            "boolean": lambda schema, depth: "(true|false)",
            "null": lambda schema, depth: "null",
        }

    def regex(self, schema: Any, depth: int) -> str:
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
            raise InvalidRequest(
                f"object: {str(schema)[:80]} refers to itself, or is no schema", field="object"
            )
        if "$ref" in schema:
            return self.regex(self._target(schema["$ref"]), depth + 1)
        if "const" in schema:
            return _literal(schema["const"])
        if "enum" in schema:
            return self._any([_literal(value) for value in schema["enum"]])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._any([self.regex(one, depth + 1) for one in schema[key]])
        if len(schema.get("allOf", ())) == 1:
            return self.regex(schema["allOf"][0], depth + 1)
        kind = schema.get("type", "object" if "properties" in schema else None)
        if isinstance(kind, list):
            return self._any([self.regex({**schema, "type": one}, depth + 1) for one in kind])
        if kind not in self._by_type:
            raise InvalidRequest(
                f"object: {str(dict(schema))[:80]} has no regex: use json_schema=", field="object"
            )
        return self._by_type[kind](schema, depth + 1)

    def _target(self, reference: str) -> Any:
        found: Any = self._root
        for step in reference.lstrip("#/").split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or step not in found:
                raise InvalidRequest(f"object: $ref {reference!r} leads nowhere", field="object")
            found = found[step]
        return found

    @staticmethod
    def _any(options: list[str]) -> str:
        return "(" + "|".join(options) + ")"

    def _object(self, schema: Mapping[str, Any], depth: int) -> str:
        blank = self._blank
        properties = schema.get("properties", {})
        required = set(schema.get("required", ()))
        texts = [
            (f'"{re.escape(json.dumps(name)[1:-1])}"{blank}:{blank}{self.regex(of, depth)}', name)
            for name, of in properties.items()
        ]
        if not texts:
            return rf"\{{{blank}\}}"
        inside = self._members([text for text, _ in texts], [n in required for _, n in texts])
        return rf"\{{{blank}{inside}{blank}\}}"

    def _members(self, texts: list[str], needed: list[bool]) -> str:
        """The members in order, any of those that are not needed left out."""
        comma = f"{self._blank},{self._blank}"
        rest, alone = "", ""  # what may follow a member, and what may stand without one before it
        for text, is_needed in reversed(list(zip(texts, needed, strict=True))):
            begun = f"{text}{rest}"
            alone = begun if is_needed or not alone else f"({begun}|{alone})"
            if not is_needed and not rest and alone == begun:
                alone = f"({begun})?"
            rest = f"{comma}{begun}" if is_needed else f"({comma}{text})?{rest}"
        return alone

    def _array(self, schema: Mapping[str, Any], depth: int) -> str:
        comma = f"{self._blank},{self._blank}"
        if "prefixItems" in schema:
            items = [self.regex(one, depth) for one in schema["prefixItems"]]
            return rf"\[{self._blank}{comma.join(items)}{self._blank}\]"
        item = self.regex(schema.get("items", {"type": "string"}), depth)
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        if high == 0:
            return rf"\[{self._blank}\]"
        more = f"({comma}{item}){{{max(low - 1, 0)},{'' if high is None else high - 1}}}"
        filled = f"{item}{more}"
        inside = filled if low else f"({filled})?"
        return rf"\[{self._blank}{inside}{self._blank}\]"

    def _string(self, schema: Mapping[str, Any], depth: int) -> str:
        pattern = schema.get("pattern")
        if pattern is not None:
            return f'"{pattern.removeprefix("^").removesuffix("$")}"'
        low, high = schema.get("minLength", 0), schema.get("maxLength", "")
        count = "*" if not low and high == "" else f"{{{low},{high}}}"
        return f'"{_STRING}{count}"'


def _literal(value: Any) -> str:
    return re.escape(json.dumps(value, ensure_ascii=False))
