"""Self-consistency: several chains of thought for one question, and a vote over their answers.

Look at `s.fork(5)` and at `gen_int`: the question is computed once, and every answer is a number.
"""

from collections import Counter

import sapwood as sw

CHAINS = 5


@sw.function
def reason(s, question):
    s += sw.user(f"{question} Think step by step in two sentences.")
    chains = s.fork(CHAINS)
    for chain in chains:
        with chain.assistant():
            chain += sw.gen("thought", max_tokens=48, stop="\n", temperature=0.7)
            chain += "\nSo the answer is " + sw.gen_int("answer", max_tokens=4, temperature=0)
    chains.join()
    return Counter(s["answer"]).most_common()


def main():
    question = "Anna has 3 bags with 4 apples each. How many apples does she have?"
    state = reason.run(question=question, seed=7)
    for thought, answer in zip(state["thought"], state["answer"], strict=True):
        print(f"{answer:>4}  {' '.join(thought.split())[:80]}")
    (winner, votes), *_ = state.ret_value
    print(f"\n{winner} with {votes} of {CHAINS} votes")


if __name__ == "__main__":
    main()
