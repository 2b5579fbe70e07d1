"""From a type to the JSON schema of the texts that are read back as its values.

Owns: where pydantic's own schema says less than its validation holds (dates, durations, UUIDs,
decimals, dict keys, sets, tagged unions), and the refusal of what no schema can say. A validator
written by the user is taken as it is: what it refuses, only decoding finds.
"""

import datetime
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from ...runtime.bounds import Bound, bounded_decimal, bounded_integer
from . import texts

_BOUNDS: Final = ("gt", "ge", "lt", "le")
_MOST_EXACT: Final = 10**15  # integers that a float holds, and no overflow
# Types whose values differ wherever their texts do.
_ONE_TEXT_EACH: Final = frozenset({"int", "str", "bool", "date", "uuid", "literal", "enum"})
_FEW: Final = frozenset({"bool", "literal", "enum"})  # values, mostly
# Formats that pydantic checks and constraints do not.
_NOT_HELD: Final = frozenset(
    [f"ip{version}{kind}" for version in ("v4", "v6", "vany") for kind in ("network", "interface")]
    + ["ipvanyaddress", "base64", "base64url", "name-email", "color"]
    + ["file-path", "directory-path", "regex"]
)
_DAY: Final = datetime.timedelta(days=1)


class Refusal(Exception):
    """`schema`: the part of the type's core schema that cannot be honoured."""

    def __init__(self, schema: Mapping[str, Any], reason: str) -> None:
        super().__init__(reason)
        self.schema = schema


class TypeSchemas(GenerateJsonSchema):
    """Generates schemas for `open_objects=False`; raises Refusal."""

    _shared: Mapping[str, Mapping[str, Any]] = MappingProxyType({})  # definitions, by name

    def generate(
        self, schema: core_schema.CoreSchema, mode: JsonSchemaMode = "validation"
    ) -> JsonSchemaValue:
        made = super().generate(schema, mode)
        for name in _formats(made):
            if name in _NOT_HELD:
                raise Refusal(schema, f"texts of format {name!r} are not supported")
        return made

    # --- numbers -------------------------------------------------------------------------------

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        made = super().float_schema(schema)
        if schema.get("allow_inf_nan", self._config.allow_inf_nan) is False:
            integer = {"type": "integer", "minimum": -_MOST_EXACT, "maximum": _MOST_EXACT}
            fraction = {"type": "number", "not": {"type": "integer"}}
            made["allOf"] = [{"anyOf": [integer, fraction]}]
        return made

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        _refuse(schema, "multiple_of")
        digits = texts.decimal(schema.get("max_digits"), schema.get("decimal_places"))
        low, high = _limits(schema)
        if low is None and high is None:
            return _string(digits)
        try:
            return _string(digits, bounded_decimal(low, high))
        except ValueError as error:
            raise Refusal(schema, str(error)) from error

    # --- texts ---------------------------------------------------------------------------------

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        _refuse(schema, "ascii_only")
        pattern = schema.get("pattern")
        if isinstance(pattern, re.Pattern) and pattern.flags & ~re.UNICODE:
            raise Refusal(schema, "a pattern with flags is not supported: write them in it, (?i)")
        made = super().str_schema(schema)
        if schema.get("strip_whitespace", self._config.str_strip_whitespace):
            made["allOf"] = [{"pattern": _whole(texts.STRIPPED)}]
        return made

    def date_schema(self, schema: core_schema.DateSchema) -> JsonSchemaValue:
        _refuse(schema, "now_op")
        try:
            first, last = _first_and_last(schema)
        except OverflowError:
            raise Refusal(schema, "no date lies within its bounds") from None
        if first > last:
            raise Refusal(schema, f"no date lies within its bounds, {first} and {last}")
        if (first, last) == (datetime.date.min, datetime.date.max):
            return _string(texts.DATE)
        return _string(texts.DATE, texts.dates_between(first, last))

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        _refuse(schema, *_BOUNDS)
        return _string(texts.time(_zone(schema)))

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        _refuse(schema, "now_op", *_BOUNDS)
        return _string(texts.date_time(_zone(schema)))

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        _refuse(schema, *_BOUNDS)
        return _string(texts.DURATION)

    def uuid_schema(self, schema: core_schema.UuidSchema) -> JsonSchemaValue:
        return _string(texts.uuid(schema.get("version")))

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        _check_values(schema, schema["expected"])
        return super().literal_schema(schema)

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        _check_values(schema, schema["members"])
        return super().enum_schema(schema)

    # --- containers ----------------------------------------------------------------------------

    def set_schema(self, schema: core_schema.SetSchema) -> JsonSchemaValue:
        return self._set(schema, super().set_schema(schema))

    def frozenset_schema(self, schema: core_schema.FrozenSetSchema) -> JsonSchemaValue:
        return self._set(schema, super().frozenset_schema(schema))

    def _set(
        self, schema: core_schema.SetSchema | core_schema.FrozenSetSchema, made: JsonSchemaValue
    ) -> JsonSchemaValue:
        """Items are written once each where they are counted, or where it costs little."""
        if not self._is_hashable(schema.get("items_schema") or core_schema.any_schema()):
            raise Refusal(schema, "a set needs items that are hashable")
        items = schema.get("items_schema")
        counted = (schema.get("min_length") or 0) > 1  # one item is there, however often it is said
        if counted and not _tells_apart(items):
            raise Refusal(schema, "min_length of a set of such items is not supported")
        if not counted and (items is None or items["type"] not in _FEW):
            made.pop("uniqueItems", None)
        return made

    def _is_hashable(self, items: Mapping[str, Any], within: frozenset[str] = frozenset()) -> bool:
        """Whether all values are; `within`: the definitions that lead here."""
        kind = items["type"]
        if kind == "definition-ref":
            name = items["schema_ref"]
            return name in within or self._is_hashable(self._shared[name], within | {name})
        if kind in ("any", "list", "dict", "set", "typed-dict", "deque"):
            return False
        if kind in ("model", "dataclass") and not items.get("root_model"):
            return items["cls"].__hash__ is not None
        inner = [items["schema"]] if "schema" in items else []
        inner += items.get("items_schema", ()) if kind == "tuple" else ()
        choices = items.get("choices", ())
        inner += choices.values() if isinstance(choices, Mapping) else choices
        return all(
            self._is_hashable(one[0] if isinstance(one, tuple) else one, within) for one in inner
        )

    def definitions_schema(self, schema: core_schema.DefinitionsSchema) -> JsonSchemaValue:
        self._shared = {str(shared.get("ref")): shared for shared in schema["definitions"]}
        return super().definitions_schema(schema)

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        return self._dict(schema, schema)

    def frozendict_schema(self, schema: core_schema.FrozenDictSchema) -> JsonSchemaValue:
        return self._dict(schema, schema)

    def ordered_dict_schema(self, schema: core_schema.OrderedDictSchema) -> JsonSchemaValue:
        return self._dict(schema, schema)

    def counter_schema(self, schema: core_schema.CounterSchema) -> JsonSchemaValue:
        raise Refusal(schema, "a Counter is not supported: use a dict")

    def _dict(self, schema: core_schema.CoreSchema, parts: Mapping[str, Any]) -> JsonSchemaValue:
        values = self.generate_inner(parts["values_schema"]) if "values_schema" in parts else True
        made: JsonSchemaValue = {"type": "object", "additionalProperties": values}
        names = self._names(schema, parts.get("keys_schema") or core_schema.any_schema())
        if "enum" in names:
            made |= {"properties": dict.fromkeys(names["enum"], values)}
            made["additionalProperties"] = False
        elif names != {"type": "string"}:
            made["propertyNames"] = names
        for name, keyword in (("min_length", "minProperties"), ("max_length", "maxProperties")):
            if parts.get(name) is not None:
                made[keyword] = parts[name]
        return made

    def _names(
        self, schema: core_schema.CoreSchema, keys: core_schema.CoreSchema
    ) -> JsonSchemaValue:
        """How the keys are written: names in JSON are texts."""
        if keys["type"] == "any":
            return {"type": "string"}
        if keys["type"] == "int":
            _refuse(keys, "multiple_of")
            low, high = _limits(keys)
            bounded = low is not None or high is not None
            return _string(bounded_integer(low, high) if bounded else texts.INTEGER)
        names = dict(self.resolve_ref_schema(self.generate_inner(keys)))
        if "const" in names:
            names = {"enum": [names["const"]]}
        is_text = names.get("type") == "string" and "contentMediaType" not in names
        if "enum" in names and all(isinstance(name, str) for name in names["enum"]):
            return {"enum": names["enum"]}
        if not is_text:
            raise Refusal(schema, "keys of a dict are texts, or written as one, or integers")
        return {key: names[key] for key in _TEXT_KEYWORDS if key in names}

    # --- choices -------------------------------------------------------------------------------

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """The tag must be there, also where it has a default, for it says how to read the rest."""
        if callable(schema["discriminator"]):
            raise Refusal(schema, "a discriminator that is a function is not supported")
        made = super().tagged_union_schema(schema)
        if "discriminator" not in made:
            raise Refusal(schema, "its members call their discriminator by different names")
        tag = made.pop("discriminator")["propertyName"]
        made["anyOf"] = [_requiring(tag, choice) for choice in made.pop("oneOf")]
        return made

    # --- refused -------------------------------------------------------------------------------

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        raise Refusal(schema, "bytes are not supported")

    def json_schema(self, schema: core_schema.JsonSchema) -> JsonSchemaValue:
        raise Refusal(schema, "JSON within a text is not supported")

    def generator_schema(self, schema: core_schema.GeneratorSchema) -> JsonSchemaValue:
        raise Refusal(schema, "a generator is not supported: use a list")

    def complex_schema(self, schema: core_schema.ComplexSchema) -> JsonSchemaValue:
        raise Refusal(schema, "complex numbers are not supported")

    def fraction_schema(self, schema: core_schema.FractionSchema) -> JsonSchemaValue:
        raise Refusal(schema, "a Fraction is not supported")

    def url_schema(self, schema: core_schema.UrlSchema) -> JsonSchemaValue:
        raise Refusal(schema, "a URL type is not supported: use str")

    def multi_host_url_schema(self, schema: core_schema.MultiHostUrlSchema) -> JsonSchemaValue:
        raise Refusal(schema, "a URL type is not supported: use str")

    def is_subclass_schema(self, schema: core_schema.IsSubclassSchema) -> JsonSchemaValue:
        raise Refusal(schema, "a class has no JSON form")

    def call_schema(self, schema: core_schema.CallSchema) -> JsonSchemaValue:
        raise Refusal(schema, "a function is no type")

    def chain_schema(self, schema: core_schema.ChainSchema) -> JsonSchemaValue:
        if any(step["type"] == "is-instance" for step in schema["steps"]):
            raise Refusal(schema, "a class of Python's own has no JSON form")
        return super().chain_schema(schema)

    def handle_invalid_for_json_schema(
        self, schema: Mapping[str, Any], error_info: str
    ) -> JsonSchemaValue:
        raise Refusal(schema, f"it has no JSON form ({error_info})")

    def emit_warning(self, kind: str, detail: str) -> None:
        """Those are about defaults, which nobody reads here: what is refused never gets so far."""

    def _field(self, schema: Mapping[str, Any]) -> None:
        alias = schema.get("validation_alias")
        if isinstance(alias, list):
            paths = alias if isinstance(alias[0], list) else [alias]
            if not any(len(path) == 1 for path in paths):
                raise Refusal(schema, f"the alias path {alias} is not supported: name the field")

    def model_field_schema(self, schema: core_schema.ModelField) -> JsonSchemaValue:
        self._field(schema)
        return super().model_field_schema(schema)

    def dataclass_field_schema(self, schema: core_schema.DataclassField) -> JsonSchemaValue:
        self._field(schema)
        return super().dataclass_field_schema(schema)

    def typed_dict_field_schema(self, schema: core_schema.TypedDictField) -> JsonSchemaValue:
        self._field(schema)
        return super().typed_dict_field_schema(schema)


_TEXT_KEYWORDS: Final = ("type", "pattern", "minLength", "maxLength", "allOf", "format")


def _formats(schema: object) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if schema.get("type") == "string" and "format" in schema:
            yield schema["format"]
        for inner in schema.values():
            yield from _formats(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _formats(inner)


def _refuse(schema: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if schema.get(name) is not None:
            raise Refusal(schema, f"{name} is not supported here")


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"


def _string(pattern: str, *also: str) -> JsonSchemaValue:
    made: JsonSchemaValue = {"type": "string", "pattern": _whole(pattern)}
    if also:
        made["allOf"] = [{"pattern": _whole(other)} for other in also]
    return made


def _limits(schema: Mapping[str, Any]) -> tuple[Bound | None, Bound | None]:
    """The tighter of each two: (limit, excluded)."""
    low = [(Decimal(schema[n]), n == "gt") for n in ("gt", "ge") if schema.get(n) is not None]
    high = [(Decimal(schema[n]), n == "lt") for n in ("lt", "le") if schema.get(n) is not None]
    return (
        max(low, default=None),
        min(high, key=lambda bound: (bound[0], not bound[1]), default=None),
    )


def _first_and_last(schema: Mapping[str, Any]) -> tuple[datetime.date, datetime.date]:
    first, last = [datetime.date.min], [datetime.date.max]
    if schema.get("ge") is not None:
        first.append(schema["ge"])
    if schema.get("gt") is not None:
        first.append(schema["gt"] + _DAY)
    if schema.get("le") is not None:
        last.append(schema["le"])
    if schema.get("lt") is not None:
        last.append(schema["lt"] - _DAY)
    return max(first), min(last)


def _zone(schema: Mapping[str, Any]) -> texts.Zone:
    zone = schema.get("tz_constraint")
    if zone is None or zone == "aware" or zone == "naive":
        return zone
    raise Refusal(schema, f"an offset from UTC of {zone} is not supported here")


def _check_values(schema: Mapping[str, Any], values: list[Any]) -> None:
    for member in values:
        value = member.value if isinstance(member, Enum) else member
        if value is not None and not isinstance(value, str | int | float):
            raise Refusal(schema, f"the value {value!r} has no JSON form that is read back")


def _tells_apart(items: Mapping[str, Any] | None) -> bool:
    if items is None or items["type"] not in _ONE_TEXT_EACH:
        return False
    if items["type"] in ("literal", "enum"):
        values = items["expected"] if "expected" in items else [m.value for m in items["members"]]
        return len(set(values)) == len(values)
    return not (items.get("to_lower") or items.get("to_upper"))


def _requiring(name: str, choice: JsonSchemaValue) -> JsonSchemaValue:
    return {**choice, "required": [*dict.fromkeys([name, *choice.get("required", ())])]}
