"""Branch, solve, merge: one judge per criterion, side by side, and a verdict from all of them.

Look at the grades: they are `select`ed, so that each is one of the five and comes with its
probability, and the merged verdict reads the reasons of all branches.
"""

import sapwood as sw

CRITERIA = ["clarity", "courage", "facts"]
GRADES = ["1", "2", "3", "4", "5"]


@sw.function
def judge(s, essay):
    s += sw.system("You judge essays. You are short and fair.")
    s += sw.user(f"The essay:\n{essay}")
    judges = s.fork(len(CRITERIA))
    for one, criterion in zip(judges, CRITERIA, strict=True):
        one += sw.user(f"Judge its {criterion} in one sentence.")
        one += sw.assistant(sw.gen("reason", max_tokens=32, stop=[".", "\n"]))
        one += sw.user("Your grade, from 1 to 5?")
        one += sw.assistant(sw.select("grade", choices=GRADES))
    judges.join()
    reasons = zip(CRITERIA, s["reason"], strict=True)
    s += sw.user("".join(f"{criterion}: {reason.strip()}.\n" for criterion, reason in reasons))
    s += sw.assistant("All in all, " + sw.gen("verdict", max_tokens=32, stop=[".", "\n"]))
    return sum(map(int, s["grade"])) / len(CRITERIA)


def main():
    state = judge.run(
        essay="Cities should give streets back to children. Where cars were banned, noise fell.",
        temperature=0,
    )
    for criterion, grade, reason in zip(CRITERIA, state["grade"], state["reason"], strict=True):
        print(f"{criterion:<9}{grade}  {reason.strip()}.")
    print(f"\n{state.ret_value:.1f} of 5: all in all, {state['verdict'].strip()}.")


if __name__ == "__main__":
    main()
