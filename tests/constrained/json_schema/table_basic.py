"""Schemas, and texts to accept and to refuse: what each keyword says by itself."""

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}

# name -> schema, texts that must be accepted, texts that must be refused
CASES: dict[str, tuple[object, list[str], list[str]]] = {
    "null": ({"type": "null"}, ["null"], ["nul", "0"]),
    "boolean": ({"type": "boolean"}, ["true", "false"], ["True", "1"]),
    "integer": ({"type": "integer"}, ["0", "-7", "120"], ["01", "1.5", "+1", ""]),
    "number": ({"type": "number"}, ["0", "-7.25", "1e+9", "2.5E-3"], [".5", "1.", "1e"]),
    "string": (
        {"type": "string"},
        ['""', '"Zoë 😀"', r'"a\"b\\\n"'],
        ['"', '"a', '"a\nb"', r'"\x"', '"\x00"'],
    ),
    "types": ({"type": ["integer", "null"]}, ["3", "null"], ["true", '"3"']),
    "types with keywords": (
        {"type": ["string", "integer", "null"], "maxLength": 2, "minimum": 5},
        ['"ab"', "5", "null"],
        ['"abc"', "4", "true"],
    ),
    "length": (
        {"type": "string", "minLength": 2, "maxLength": 3},
        ['"ab"', '"é😀"', r'"\n\"\\"'],
        ['"a"', '"abcd"', r'"\n"'],
    ),
    "length by a whole float": ({"type": "string", "maxLength": 1.0}, ['"a"'], ['"ab"']),
    "pattern is searched": ({"type": "string", "pattern": "b+"}, ['"abbc"', '"b"'], ['"ac"']),
    "pattern with anchors": ({"type": "string", "pattern": r"^\d{2}$"}, ['"12"'], ['"123"', '"1"']),
    "pattern needs escapes": (
        {"type": "string", "pattern": r'^["\\/\n]{2}$'},
        [r'"\"\\"', r'"/\n"', r'"\n\n"'],
        ['"""', r'"\\"', '"\n\n"'],
    ),
    "pattern and length": (
        {"type": "string", "pattern": "^a+b?$", "minLength": 2, "maxLength": 3},
        ['"aa"', '"ab"', '"aab"'],
        ['"a"', '"aaab"', '"b"'],
    ),
    "pattern reads classes as every validator does": (
        {"type": "string", "pattern": r"^\w\W$"},
        ['"a-"'],
        ['"é-"', '"aé"'],
    ),
    "enum": (
        {"enum": ['a"b', 1, None, 1.5, {"a": [1, True]}, "é"]},
        [r'"a\"b"', "1", "null", "1.5", '{"a": [1, true]}', '"é"'],
        ['"a', "2", "{}"],
    ),
    "enum under a type": ({"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
    "enum of regex characters": (
        {"enum": ["a.*", "(", "\\d"]},
        ['"a.*"', '"("', r'"\\d"'],
        ['"a"'],
    ),
    "const": ({"const": "x/é\n"}, [r'"x/é\n"'], ['"x"']),
    "bounds": (
        {"type": "integer", "minimum": -3, "exclusiveMaximum": 12},
        ["-3", "0", "11"],
        ["-4", "12", "-0"],
    ),
    "both kinds of bound": (
        {"type": "integer", "minimum": 1, "exclusiveMinimum": 5},
        ["6"],
        ["5", "1"],
    ),
    "number bounds": (
        {"type": "number", "minimum": -0.5, "exclusiveMaximum": 1.25, "maximum": 7},
        ["-0.5", "0", "1.2499", "1", "-0.25"],
        ["-0.51", "1.25", "2", "-1"],
    ),
    "object": (
        POINT,
        ['{"x": 1, "y": -2}'],
        ['{"x": 1}', '{"y": 1, "x": 2}', '{"x":1,"y":2}', '{"x": 1, "y": 2, "z": 3}'],
    ),
    "optional properties": (
        {
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
            "required": ["b"],
        },
        ['{"b": null}', '{"a": null, "b": null}', '{"b": null, "c": null}'],
        ["{}", '{"a": null}', '{"b": null,}', '{, "b": null}', '{"c": null, "b": null}'],
    ),
    "no required property": (
        {"properties": {"a": {"type": "null"}, "b": {"type": "null"}}},
        ["{}", '{"a": null}', '{"b": null}', '{"a": null, "b": null}'],
        ['{"a": null, }', '{"b": null, "a": null}'],
    ),
    "awkward names": (
        {
            "properties": {'a"b\\.*': {"type": "null"}, "é/~": {"type": "null"}},
            "additionalProperties": False,
        },
        [r'{"a\"b\\.*": null, "é/~": null}'],
        ['{"a": null}'],
    ),
    "required but not declared": (
        {"type": "object", "required": ["k"], "additionalProperties": {"type": "boolean"}},
        ['{"k": true}'],
        ["{}", '{"k": 1}'],
    ),
    "impossible optional property": (
        {"properties": {"a": False, "b": {"type": "null"}}},
        ["{}", '{"b": null}'],
        ['{"a": null}'],
    ),
    "map": (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        ["{}", '{"a": 1}', '{"a": 1, "é": -2}'],
        ['{"a": "1"}', '{"a": 1,}', "{a: 1}"],
    ),
    "empty object": ({"type": "object", "additionalProperties": False}, ["{}"], ['{"a": 1}']),
    "array": (
        {"type": "array", "items": {"type": "integer"}},
        ["[]", "[1]", "[1, -2, 3]"],
        ["[1,2]", "[1, ]", "[ ]", '["1"]', "[1"],
    ),
    "array bounds": (
        {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 3},
        ["[null]", "[null, null, null]"],
        ["[]", "[null, null, null, null]"],
    ),
    "array of at least": (
        {"items": {"type": "null"}, "minItems": 2},
        ["[null, null]", "[null, null, null]"],
        ["[]", "[null]"],
    ),
    "array of none": ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    "unique but at most one": (
        {"type": "array", "uniqueItems": True, "maxItems": 1, "items": {"type": "null"}},
        ["[]", "[null]"],
        ["[null, null]"],
    ),
    "tuple": (
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "null"}],
            "minItems": 2,
            "maxItems": 2,
        },
        ["[1, null]"],
        ["[]", "[1]", "[null, 1]", "[1, null, 1]"],
    ),
    "short tuple": (
        {"prefixItems": [{"type": "integer"}, {"type": "null"}], "items": False},
        ["[]", "[1]", "[1, null]"],
        ["[null]", "[1, null, 2]"],
    ),
    "tuple and more": (
        {"prefixItems": [{"type": "integer"}], "items": {"type": "null"}, "minItems": 1},
        ["[1]", "[1, null]", "[1, null, null]"],
        ["[]", "[null]", "[1, 1]"],
    ),
    "tuple cut short": (
        {"prefixItems": [{"type": "integer"}, {"type": "null"}], "maxItems": 1},
        ["[]", "[1]"],
        ["[1, null]"],
    ),
    "nested arrays": (
        {"type": "array", "items": {"type": "array", "items": POINT, "maxItems": 2}},
        ["[]", "[[]]", '[[{"x": 1, "y": 2}], []]'],
        ["[[], ]", "[1]"],
    ),
    "anyOf": ({"anyOf": [{"type": "integer"}, POINT]}, ["1", '{"x": 1, "y": 2}'], ["null"]),
    "oneOf of types": ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ["1", '"a"'], ["1.5"]),
    "oneOf of values": ({"oneOf": [{"const": "a"}, {"enum": ["b", "c"]}]}, ['"a"', '"c"'], ['"d"']),
    "oneOf with a tag": (
        {
            "oneOf": [
                {
                    "properties": {"kind": {"const": "a"}, "v": {"type": "null"}},
                    "required": ["kind"],
                },
                {"properties": {"kind": {"const": "b"}}, "required": ["kind"]},
            ],
            "discriminator": {"propertyName": "kind"},
        },
        ['{"kind": "a", "v": null}', '{"kind": "b"}'],
        ['{"kind": "c"}', '{"kind": "a", "v": 1}'],
    ),
    "allOf of one": ({"allOf": [{"type": "null"}], "title": "x"}, ["null"], ["1"]),
    "references": (
        {
            "$defs": {"p": POINT, "a/b": {"$ref": "#/$defs/p"}},
            "type": "array",
            "items": {"$ref": "#/$defs/a~1b", "description": "a point"},
            "maxItems": 1,
        },
        ["[]", '[{"x": 1, "y": 2}]'],
        ["[1]"],
    ),
    "references by percent-encoding": (
        {
            "$defs": {"e f/%": {"type": "null"}, "é": {"type": "boolean"}},
            "prefixItems": [{"$ref": "#/$defs/e%20f~1%25"}, {"$ref": "#/%24defs/%C3%A9"}],
            "minItems": 2,
            "items": False,
        },
        ["[null, true]"],
        ["[true, null]", "[null]"],
    ),
    "reference beside what asserts nothing": (
        {
            "$defs": {"n": {"type": "integer", "minimum": 3}},
            "$ref": "#/$defs/n",
            "default": 5,
            "description": "d",
            "x-y": 1,
        },
        ["3"],
        ["2", "null"],
    ),
    "reference beside a type": (
        {"$defs": {"n": {"enum": [1, 1.5, "a", 2.0]}}, "$ref": "#/$defs/n", "type": "integer"},
        ["1", "2"],
        ["1.5", '"a"'],
    ),
    "anyOf beside a type": (
        {"type": "object", "anyOf": [POINT, {"required": ["a"]}]},
        ['{"x": 1, "y": 2}', '{"a": 1}'],
        ["{}", "null", "[]"],
    ),
    "anyOf beside a type that narrows it": (
        {"type": ["integer", "null"], "anyOf": [{"type": "number"}, {"type": "string"}, True]},
        ["1", "null", "-20"],
        ["1.5", '"a"', "true", "[]"],
    ),
    "anyOf of integers under the type number": (
        {"type": "number", "anyOf": [{"type": "integer", "minimum": 3}, {"const": 0.5}]},
        ["3", "0.5"],
        ["2", "1.5"],
    ),
    "oneOf and allOf beside a type": (
        {
            "type": "array",
            "oneOf": [{"type": "string"}, {"allOf": [{"maxItems": 1}], "type": "array"}],
        },
        ["[]", "[1]"],
        ['"a"', "[1, 2]"],
    ),
    "annotations": (
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://example.org/s",
            "$comment": "c",
            "title": "t",
            "description": "d",
            "default": 1,
            "examples": [1],
            "deprecated": True,
            "readOnly": True,
            "writeOnly": False,
            "$anchor": "here",
            "contentEncoding": "base64",
            "contentMediaType": "text/plain",
            "contentSchema": {"type": "null"},
            "x-order": 3,
            "type": "null",
        },
        ["null"],
        ["1"],
    ),
    "anything": (
        True,
        ["1", '"a"', "[]", "{}", '{"a": [1, {"b": null}]}', "[[[1]]]"],
        ["", "[[[[1]]]", "a"],
    ),
    "no keyword": ({}, ["1.5", "{}"], ["nul"]),
    "any object": ({"type": "object"}, ["{}", '{"a": {"b": [1, 2]}}'], ["[]", "1"]),
    "any array": ({"type": "array"}, ["[]", '[1, "a", {}]'], ["{}", "1"]),
    "date": (
        {"type": "string", "format": "date"},
        ['"2024-02-29"', '"1999-12-31"'],
        ['"2023-02-29"', '"2024-13-01"', '"2024-04-31"', '"1900-02-29"'],
    ),
    "time": (
        {"type": "string", "format": "time"},
        ['"23:59:59Z"', '"00:00:00.25+02:00"'],
        ['"24:00:00Z"', '"12:00:00"'],
    ),
    "date-time": (
        {"type": "string", "format": "date-time"},
        ['"2024-02-29T12:30:00Z"', '"1999-01-01T00:00:00.5-11:30"'],
        ['"2024-02-30T12:30:00Z"', '"2024-02-29 12:30:00Z"'],
    ),
    "uuid": (
        {"type": "string", "format": "uuid"},
        ['"123e4567-e89b-12d3-a456-426614174000"'],
        ['"123e4567"'],
    ),
}
