"""A grammar, a recursive schema and a call within free text: each output parses by construction."""

import json

import sapwood as sw

SUM = sw.Lark('start: term ("+" term)+\nterm: /[1-9][0-9]{0,2}/\n')
TREE = sw.JsonSchema.of(
    {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 12},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
                },
                "required": ["name", "children"],
                "additionalProperties": False,
            }
        },
    }
)
CALL = sw.StructuralTag.of(
    {
        "type": "structural_tag",
        "format": {
            "type": "tag",
            "begin": "<weather>",
            "content": {"type": "json_schema", "json_schema": {"enum": ["Oslo", "Rome", "Lima"]}},
            "end": "</weather>",
        },
    }
)


@sw.function
def show(s):
    s += "Three numbers that make ten, added: " + sw.gen("sum", max_tokens=16, constraint=SUM)
    s += "\nA family as a tree in JSON: " + sw.gen("tree", max_tokens=80, constraint=TREE)
    s += "\nAsk for the weather in Rome: " + sw.gen("call", max_tokens=24, constraint=CALL)


def main():
    with sw.Engine() as engine:
        state = show.run(backend=engine, temperature=0)
        print(state["sum"], "=", sum(map(int, state["sum"].split("+"))))
        print(json.dumps(json.loads(state["tree"]), indent=1))
        print(state["call"])


if __name__ == "__main__":
    main()
