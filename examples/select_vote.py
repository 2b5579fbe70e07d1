"""Several judges, one verdict: `select` scores every option exactly, `fork` asks the judges at
once.

Look at the meta info of a select: the probability of each option, not only the winner.
"""

from collections import Counter

import sapwood as sw

JUDGES = ["a strict film critic", "a cheerful child", "a tired night nurse", "a poet"]


@sw.function
def vote(s, review):
    s += sw.system("You judge film reviews.")
    judges = s.fork(len(JUDGES))
    for judge, who in zip(judges, JUDGES, strict=True):
        judge += sw.user(f"You are {who}. Is this review good or bad? {review}")
        judge += sw.assistant("It is " + sw.select("verdict", choices=["good", "bad"]))
    judges.join()


def main():
    state = vote.run(review="A slow start, but I left the cinema dancing.")
    verdicts = state["verdict"]
    for who, verdict in zip(JUDGES, verdicts, strict=True):
        print(f"{who:<22}{verdict}")
    print(f"\nverdict: {Counter(verdicts).most_common(1)[0][0]}")


if __name__ == "__main__":
    main()
