"""The main job in one program: roles, gen, select, fork and join, a JSON schema, one shared prefix.

Look at the colours (what the model wrote; what the grammar dictated is in it) and at the table in
the end: how many prompt tokens each step needed, and how many of them were already in the tree.
"""

import sys
import time

import sapwood as sw

CARD = {
    "type": "object",
    "properties": {
        "place": {"type": "string", "maxLength": 20},
        "season": {"enum": ["spring", "summer", "autumn", "winter"]},
        "days": {"type": "integer"},
        "pack": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
    },
    "required": ["place", "season", "days", "pack"],
    "additionalProperties": False,
}


@sw.function
def plan_trip(s, place):
    s += sw.system("You are a travel guide. You answer in one short sentence.")
    s += sw.user(f"Why should I visit {place}?")
    s += sw.assistant(sw.gen("reason", max_tokens=40, stop="."))
    s += sw.user("Which season is best?")
    s += sw.assistant(sw.select("season", choices=["spring", "summer", "autumn", "winter"]))
    branches = s.fork(3)
    for branch, topic in zip(branches, ["food", "walks", "music"], strict=True):
        branch += sw.user(f"One tip about {topic}.")
        branch += sw.assistant(sw.gen("tip", max_tokens=24, stop="\n"))
    branches.join()
    s += sw.user("Sum up my trip as JSON.")
    s += sw.assistant(sw.gen("card", max_tokens=120, json_schema=CARD))


def main():
    green, dim, plain = ("\33[32m", "\33[2m", "\33[0m") if sys.stdout.isatty() else ("", "", "")
    with sw.Engine() as engine:
        begin, before = time.perf_counter(), engine.stats()
        state = plan_trip.run(place="Lisbon", temperature=0, stream=True, backend=engine)
        for piece in state.text_iter():
            print(piece, end="", flush=True)
        state.sync()
        seconds, after = time.perf_counter() - begin, engine.stats()
        print(f"\n\n{dim}tips from the branches:{plain}")
        for tip in state["tip"]:
            print(f"  {green}{tip.strip()}{plain}")
        count = {name: after[name] - before[name] for name in after if name.startswith("tokens_")}
        print(f"\n{'tokens computed':<28}{count['tokens_computed']:>8}")
        print(f"{'tokens reused from the tree':<28}{count['tokens_reused']:>8}")
        print(f"{'forced by the grammar':<28}{count['tokens_forced']:>8}")
        print(f"{'seconds':<28}{seconds:>8.2f}")


if __name__ == "__main__":
    main()
