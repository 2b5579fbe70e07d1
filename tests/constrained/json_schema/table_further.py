"""Schemas, and texts to accept and to refuse: what keywords say together."""

# name -> schema, accepted, refused
CASES: dict[str, tuple[object, list[str], list[str]]] = {
    "open object": (
        {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}},
        ['{"a": null, "x": [1, {}]}', '{"x": 1, "y": 2}', '{"a": null, "b": null, "ab": 1}'],
        ['{"x": 1, "a": null}', '{"a": 1}', '{"b": null, "a": null}', r'{"\u0061": 1}'],
    ),
    "any depth": (
        {"type": "array"},
        ["[" * 60 + "]" * 60, '[{"a": [[{"b": {}}]]}]'],
        ["[" * 60 + "]" * 59],
    ),
    "recursion": (
        {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "next": {"$ref": "#"}},
            "required": ["v"],
            "additionalProperties": False,
        },
        ['{"v": 1, "next": {"v": 2, "next": {"v": 3}}}', '{"v": 1}'],
        ['{"v": 1, "next": {}}', '{"v": 1, "next": null}'],
    ),
    "patterns of keys": (
        {
            "type": "object",
            "patternProperties": {"^x_": {"type": "integer"}, "_n$": {"minimum": 3}},
            "additionalProperties": False,
        },
        ['{"x_a": 1}', '{"x_n": 3, "x_": 2}', '{"a_n": "any"}', "{}"],
        ['{"x_n": 2}', '{"x_a": "1"}', '{"a": 1}', r'{"\u0078_a": 1}'],
    ),
    "names of properties": (
        {"type": "object", "propertyNames": {"pattern": "^[a-z]{1,2}$"}},
        ['{"a": 1, "zz": 2}'],
        ['{"abc": 1}', '{"": 1}', '{"A": 1}'],
    ),
    "number of properties": (
        {"type": "object", "minProperties": 1, "maxProperties": 2},
        ['{"a": 1}', '{"a": 1, "b": 2}'],
        ["{}", '{"a": 1, "b": 2, "c": 3}'],
    ),
    "so many different names": (
        {
            "type": "object",
            "additionalProperties": {"type": ["string", "null"], "pattern": "^x"},
            "minProperties": 2,
            "maxProperties": 3,
        },
        ['{"a": "x", "b": "xy"}', '{"a": "x", "": null, "b": "x"}'],
        ['{"a": "x"}', '{"a": "x", "a": "xy"}', '{"a": "x", "b": "y"}', "{}"],
    ),
    "so many names of a pattern": (
        {
            "type": "object",
            "patternProperties": {"^(50|[1-9]00)$": {"type": "integer"}},
            "additionalProperties": False,
            "minProperties": 2,
        },
        ['{"50": 1, "100": 2}', '{"900": 1, "50": 2, "100": 3}'],
        ['{"50": 1}', '{"50": 1, "50": 2}', '{"50": 1, "51": 2}'],
    ),
    "one that needs another": (
        {
            "type": "object",
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
            "dependentRequired": {"a": ["b"], "c": ["a"]},
            "additionalProperties": False,
        },
        ["{}", '{"b": null}', '{"a": null, "b": null}', '{"a": null, "b": null, "c": null}'],
        ['{"a": null}', '{"c": null}', '{"b": null, "c": null}'],
    ),
    "one that changes the others": (
        {
            "type": "object",
            "properties": {"a": {"type": "null"}},
            "dependentSchemas": {"a": {"required": ["b"], "properties": {"b": {"const": 1}}}},
        },
        ["{}", '{"b": 2}', '{"a": null, "b": 1}'],
        ['{"a": null}', '{"a": null, "b": 2}'],
    ),
    "if": (
        {"if": {"type": "integer"}, "then": {"minimum": 3}, "else": {"type": "string"}},
        ["3", "44", '"a"'],
        ["2", "true", "1.5"],
    ),
    "not": ({"not": {"type": ["string", "object"]}}, ["1", "[]", "null"], ['"a"', "{}"]),
    "not this text": (
        {"type": "string", "not": {"enum": ["a", "é"]}},
        ['""', '"b"', '"aa"'],
        ['"a"', '"é"', r'"\u0061"', r'"\u00e9"'],
    ),
    "not a whole number": (
        {"type": "number", "not": {"type": "integer"}},
        ["0.5", "-3.25", "1.50"],
        ["1", "1.0", "1.00000000000000000001", "1e2"],
    ),
    "oneOf that overlap": (
        {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 2}]},
        ["1", "2.5", "-3"],
        ["2", "1.5", "30"],
    ),
    "allOf of several": (
        {"allOf": [{"minimum": 2}, {"maximum": 5}, {"type": "integer"}, {"not": {"const": 4}}]},
        ["2", "3", "5"],
        ["1", "4", "6", "2.5"],
    ),
    "nothing that is not spoken of": (
        {
            "type": "object",
            "allOf": [{"properties": {"a": {"type": "null"}}}],
            "anyOf": [{"properties": {"b": {"type": "null"}}, "required": ["b"]}, True],
            "unevaluatedProperties": False,
        },
        ["{}", '{"a": null}', '{"a": null, "b": null}'],
        ['{"c": 1}', '{"a": 1}', '{"b": 1}'],
    ),
    "items that are not spoken of": (
        {"type": "array", "prefixItems": [{"type": "integer"}], "unevaluatedItems": False},
        ["[]", "[1]"],
        ["[1, 2]", '["a"]'],
    ),
    "items of the old drafts": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "array",
            "items": [{"type": "integer"}],
            "additionalItems": {"type": "null"},
        },
        ["[]", "[1]", "[1, null]"],
        ['["a"]', "[1, 1]"],
    ),
    "contains": (
        {"type": "array", "contains": {"type": "integer"}, "minContains": 1, "maxContains": 2},
        ["[1]", '["a", 1, null, 2]'],
        ["[]", '["a"]', "[1, 2, 3]"],
    ),
    "unique texts": (
        {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 2},
        ['["a", "b"]', '["", "a", "aa"]'],
        ['["a", "a"]', '["a"]', r'["a", "\u0061"]'],
    ),
    "unique values": (
        {"type": "array", "items": {"enum": [1, "a", None]}, "uniqueItems": True},
        ["[]", '[null, 1, "a"]'],
        ["[1, 1]", '["b"]'],
    ),
    "multiples": (
        {"type": "number", "multipleOf": 0.25},
        ["0", "1", "0.75", "-2.50"],
        ["0.2", "0.3", "1e1"],
    ),
    "multiples within bounds": (
        {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 21},
        ["14", "21"],
        ["7", "20", "28"],
    ),
    "references by name": (
        {
            "$defs": {"a": {"$anchor": "here", "type": "null"}, "b": {"$id": "/b", "const": 1}},
            "prefixItems": [{"$ref": "#here"}, {"$ref": "/b"}],
            "type": "array",
        },
        ["[null, 1]", "[]"],
        ["[1]", "[null, null]"],
    ),
    "keywords of the drafts": (
        {
            "$schema": "https://json-schema.org/draft/2019-09/schema",
            "$vocabulary": {"https://json-schema.org/draft/2019-09/vocab/core": True},
            "$recursiveAnchor": True,
            "type": "object",
            "properties": {"a": {"$recursiveRef": "#"}},
            "definitions": {"x": {"id": "#x", "example": 1, "externalDocs": {}, "xml": {}}},
            "dependencies": {"b": ["a"], "c": {"maxProperties": 1}},
        },
        ['{"a": {"a": {}}}', '{"a": {}, "b": 1}', '{"c": 1}'],
        ['{"a": 1}', '{"b": 1}', '{"a": {}, "c": 1}'],
    ),
    "dynamic references": (
        {
            "$dynamicAnchor": "node",
            "type": "array",
            "items": {"$dynamicRef": "#node"},
        },
        ["[]", "[[], [[]]]"],
        ["[1]", "[[[null]]]"],
    ),
    "oneOf of closed objects": (
        {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {n: {"type": "null"}},
                    "additionalProperties": False,
                }
                for n in "abc"
            ]
        },
        ['{"a": null}', '{"b": null}', '{"c": null}'],
        ["{}", '{"a": null, "b": null}', '{"d": null}'],
    ),
    "not a closed object": (
        {
            "type": "object",
            "properties": {"b": {"type": "null"}},
            "not": {"properties": {"a": {"type": "null"}}, "additionalProperties": False},
        },
        ['{"b": null}', '{"a": 1}', '{"a": null, "x": 1}', '{"b": null, "a": null}'],
        ["{}", '{"a": null}', '{"b": 1}', '{"x": 1, "b": null}'],
    ),
    "not an object of whole numbers": (
        {"type": "object", "not": {"additionalProperties": {"type": "integer"}}},
        ['{"a": "x"}', '{"a": 1, "b": null}'],
        ["{}", '{"a": 1}', '{"a": "x", "a": 1}'],
    ),
}
