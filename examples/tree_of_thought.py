"""Tree of thought: propose plans, carry each one out, keep the branch that the model trusts most.

Look at the nested forks: four solutions share the question, two each share a plan, and every
shared token is computed once.
"""

import sapwood as sw

PLANS, SOLUTIONS = 2, 2


@sw.function
def solve(s, question):
    s += sw.system("You solve puzzles with short sentences.")
    s += sw.user(f"{question}\nFirst say in one sentence how you will solve it.")
    plans = s.fork(PLANS)
    plans += sw.assistant(sw.gen("plan", max_tokens=32, stop="\n"))
    leaves = []
    for plan in plans:
        plan += sw.user("Now solve it by that plan.")
        solutions = plan.fork(SOLUTIONS)
        solutions += sw.assistant(sw.gen("solution", max_tokens=48, stop="\n\n"))
        solutions += sw.user("Is this solution right? Answer yes or no.")
        solutions += sw.assistant(sw.select("verdict", choices=["yes", "no"]))
        leaves += solutions
    return max(leaves, key=trust)


def trust(leaf):
    """The probability that the model gave to "yes"."""
    return leaf.get_meta_info("verdict")["probabilities"][0]


def main():
    with sw.Engine() as engine:
        state = solve.run(
            question="A farmer has 17 sheep. All but 9 run away. How many are left?",
            temperature=0.7,
            seed=1,
            backend=engine,
        )
        best = state.ret_value
        print(f"plan: {best['plan'].strip()}\nsolution: {best['solution'].strip()}")
        print(f"trusted to {trust(best):.0%}, the best of {PLANS * SOLUTIONS}")
        stats = engine.stats()
        print(f"{stats['tokens_computed']} tokens computed, {stats['tokens_reused']} reused")


if __name__ == "__main__":
    main()
