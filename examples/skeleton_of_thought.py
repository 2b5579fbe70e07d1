"""Skeleton of thought: one program names the points, and calls another to expand them side by side.

Look at `expand.run_batch` within `essay`: a program is an ordinary function, also for a program.
"""

import sapwood as sw

POINTS = 3
POINT = "[A-Z][a-z]{2,9}( [a-z]{2,9}){1,2}"


@sw.function
def expand(s, topic, point):
    s += sw.system("You write one plain sentence.")
    s += sw.user(f"An essay about {topic}. Write the sentence on this point: {point}.")
    s += sw.assistant(sw.gen("sentence", max_tokens=40, stop=[".", "\n"]))
    return s["sentence"].strip() + "."


@sw.function
def essay(s, topic):
    s += sw.user(f"Name {POINTS} points for an essay about {topic}, two or three words each.")
    with s.assistant():
        for number in range(POINTS):
            s += f"{number + 1}. " + sw.gen(f"point {number}", max_tokens=8, regex=POINT)
            s += "\n"
    points = [s[f"point {number}"] for number in range(POINTS)]
    states = expand.run_batch([{"topic": topic, "point": point} for point in points], temperature=0)
    return [(point, state.ret_value) for point, state in zip(points, states, strict=True)]


def main():
    state = essay.run(topic="the sea", temperature=0.8, seed=4)
    for point, sentence in state.ret_value:
        print(f"{point}: {sentence}")


if __name__ == "__main__":
    main()
