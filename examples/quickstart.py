"""The main job in one program: roles, gen, select, fork and join, a JSON schema, one shared prefix.

Look at the green text (the model's turns) and at the table: how many of each step's prompt tokens
were already in the tree, and how many tokens the schema dictated.
"""

import sys

import sapwood as sw

SEASONS = ["spring", "summer", "autumn", "winter"]
CARD = {
    "type": "object",
    "properties": {
        "place": {"type": "string", "maxLength": 20},
        "season": {"enum": SEASONS},
        "days": {"type": "integer"},
        "pack": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
    },
    "required": ["place", "season", "days", "pack"],
    "additionalProperties": False,
}
GREEN, DIM, PLAIN = ("\33[32m", "\33[2m", "\33[0m") if sys.stdout.isatty() else ("", "", "")


@sw.function
def plan_trip(s, place):
    s += sw.system("You are a travel guide. You answer in one short sentence.")
    s += sw.user(f"Why should I visit {place}?")
    s += sw.assistant(sw.gen("reason", max_tokens=40, stop="."))
    s += sw.user("Which season is best?")
    s += sw.assistant(sw.select("season", choices=SEASONS))
    branches = s.fork(3)
    for branch, topic in zip(branches, ["food", "walks", "music"], strict=True):
        branch += sw.user(f"One tip about {topic}.")
        branch += sw.assistant(sw.gen("tip", max_tokens=24, stop="\n"))
    branches.join()
    s += sw.user("Sum up my trip as JSON.")
    s += sw.assistant(sw.gen("card", max_tokens=120, json_schema=CARD))


def main():
    state = plan_trip.run(place="Lisbon", temperature=0, stream=True)
    for piece in state.text_iter():
        piece = piece.replace("<|im_start|>assistant\n", f"<|im_start|>assistant\n{PLAIN}{GREEN}")
        print(piece.replace("<|im_end|>", f"{PLAIN}{DIM}<|im_end|>"), end="", flush=True)
    print(PLAIN, *(f"tip: {GREEN}{tip.strip()}{PLAIN}" for tip in state["tip"]), sep="\n")
    print("\nstep       tokens in    reused  computed    forced   seconds")
    for name in ("reason", "season", "tip", "card"):
        metas = state.get_meta_info(name)
        for meta in metas if isinstance(metas, list) else [metas]:
            tokens, reused, forced = (meta[f"{k}_tokens"] for k in ("prompt", "cached", "forced"))
            computed = tokens - reused + meta["completion_tokens"]
            figures = "".join(f"{n:>10}" for n in (tokens, reused, computed, forced))
            print(f"{name:<10}{figures}{meta['e2e_latency']:>10.2f}")


if __name__ == "__main__":
    main()
