"""One branch for each tip: all are expanded at once from the same prefix.

Look at the last line: the branches reuse the prompt instead of computing it once each.
"""

import sapwood as sw

TIPS = ["Sleep well", "Move every day", "Eat plants"]


@sw.function
def advise(s, topic):
    s += sw.system("You are a kind doctor. You answer in one sentence.")
    s += sw.user(f"Give me advice about {topic}: " + "; ".join(TIPS) + ".")
    branches = s.fork(len(TIPS))
    for branch, tip in zip(branches, TIPS, strict=True):
        branch += sw.assistant(f"{tip}: " + sw.gen("detail", max_tokens=40, stop="."))
    branches.join()


def main():
    with sw.Engine() as engine:
        state = advise.run(topic="staying healthy", temperature=0, backend=engine)
        for tip, detail in zip(TIPS, state["detail"], strict=True):
            print(f"{tip}: {detail.strip()}.")
        stats = engine.stats()
        print(f"\n{stats['tokens_computed']} tokens computed, {stats['tokens_reused']} reused")


if __name__ == "__main__":
    main()
