"""A chat of several turns: each turn computes only what is new.

Look at `cached_tokens`: what was said before, by either side, is read from the tree.
"""

import sapwood as sw

TURNS = ["Name a river in France.", "Which sea does it flow into?", "Is it longer than the Rhine?"]


@sw.function
def chat(s, turns):
    s += sw.system("You answer in one short sentence.")
    for number, turn in enumerate(turns):
        s += sw.user(turn)
        s += sw.assistant(sw.gen(f"answer {number}", max_tokens=40, stop=["\n"]))


def main():
    state = chat.run(TURNS, temperature=0, stream=True)
    for number, turn in enumerate(TURNS):
        print(f"> {turn}\n", end="", flush=True)
        for piece in state.text_iter(f"answer {number}"):
            print(piece, end="", flush=True)
        meta = state.get_meta_info(f"answer {number}")
        print(f"\n  ({meta['cached_tokens']} of {meta['prompt_tokens']} prompt tokens cached)")


if __name__ == "__main__":
    main()
