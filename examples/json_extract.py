"""Facts out of free text as JSON that always validates, a batch at a time.

Look at `json_schema=`: the output follows it token by token, and `forced_tokens` says how many
tokens the schema dictated, which the model never had to be asked for.
"""

import json

import sapwood as sw

SCHEMA = {
    "type": "object",
    "properties": {
        "who": {"type": "string", "maxLength": 24},
        "what": {"enum": ["bought", "sold", "lost"]},
        "pieces": {"type": "integer"},
    },
    "required": ["who", "what", "pieces"],
    "additionalProperties": False,
}

NOTES = [
    "Yesterday Maria bought three lamps at the market.",
    "Old Tom sold 12 chairs to the school.",
    "It seems that Ines lost two umbrellas on the train.",
]


@sw.function
def extract(s, note):
    s += sw.user(f"Note: {note}\nWrite the note as JSON with who, what and pieces.")
    s += sw.assistant(sw.gen("record", max_tokens=60, json_schema=SCHEMA))


def main():
    for state in extract.run_batch([{"note": note} for note in NOTES], temperature=0):
        meta = state.get_meta_info("record")
        record = json.loads(state["record"])
        forced, total = meta["forced_tokens"], meta["completion_tokens"]
        print(f"{record}   {forced} of {total} tokens forced")


if __name__ == "__main__":
    main()
