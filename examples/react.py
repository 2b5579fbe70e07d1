"""ReAct: think, call a tool, read what it says, and go on until the answer.

Look at the action: a regular expression lets the model write only calls that exist, so nothing has
to be repaired; and each step reuses all steps before it.
"""

import ast
import operator

import sapwood as sw

POPULATION = {"Oslo": "717,000", "Rome": "2,750,000", "Lima": "10,100,000"}
SUMS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
ACTION = (
    rf"population\[({'|'.join(POPULATION)})\]"
    r"|calculate\[[0-9]{1,9} [-+*] [0-9]{1,9}\]"
    r"|finish\[[A-Za-z0-9, ]{1,30}\]"
)
PROMPT = """Answer with the tools population[city], calculate[a + b] and finish[answer].

Question: How many people live in Rome?
Thought: I look up the population of Rome.
Action: population[Rome]
Observation: 2,750,000
Thought: That is the answer.
Action: finish[2,750,000]

"""


def calculate(text):
    tree = ast.parse(text, mode="eval").body
    return str(SUMS[type(tree.op)](tree.left.value, tree.right.value))


TOOLS = {"population": POPULATION.__getitem__, "calculate": calculate}


@sw.function
def react(s, question, max_steps=4):
    s += PROMPT + f"Question: {question}\n"
    for _ in range(max_steps):
        s += "Thought:" + sw.gen("thought", max_tokens=32, stop="\n")
        s += "\nAction: " + sw.gen("action", max_tokens=32, regex=ACTION)
        tool, _, argument = s["action"].rstrip("]").partition("[")
        if tool == "finish":
            return argument
        s += f"\nObservation: {TOOLS[tool](argument)}\n"
    return None


def main():
    state = react.run(question="How many people live in Lima?", temperature=0)
    print(state.text().removeprefix(PROMPT))
    print(f"\nanswer: {state.ret_value}")


if __name__ == "__main__":
    main()
