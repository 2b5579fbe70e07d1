"""An answer with citations: rank passages, put the best into the prompt, cite only what is there.

Look at the schema: `source` is an enum of the passages in the prompt, so that a made-up citation
cannot be written.
"""

import json
import math
import re
from collections import Counter

import sapwood as sw

PASSAGES = [
    "Sapwood is the living, outer wood of a tree. It carries water from the roots to the leaves.",
    "Heartwood is the dead, inner wood of a tree. It carries no water, and it is often darker.",
    "Bark protects a tree against insects, fire and frost.",
    "Leaves make sugar out of light, water and air.",
]


def words(text):
    return re.findall(r"[a-z]+", text.lower())


def ranked(question, k=2):
    """The k best passages by the sum of the inverse document frequencies of shared words."""
    counts = Counter(word for passage in PASSAGES for word in set(words(passage)))
    rarity = {word: math.log(1 + len(PASSAGES) / count) for word, count in counts.items()}
    asked = set(words(question))

    def score(number):
        return sum(rarity[word] for word in asked & set(words(PASSAGES[number])))

    return sorted(range(len(PASSAGES)), key=score, reverse=True)[:k]


@sw.function
def answer(s, question):
    found = ranked(question)
    listed = "\n".join(f"[{number}] {PASSAGES[number]}" for number in found)
    schema = {
        "type": "object",
        "properties": {
            "answer": {"type": "string", "pattern": "^[A-Z]", "maxLength": 80},
            "source": {"enum": found},
        },
        "required": ["answer", "source"],
        "additionalProperties": False,
    }
    s += sw.user(f"{listed}\n\n{question} Answer in JSON with the number of your source.")
    s += sw.assistant(sw.gen("answer", max_tokens=80, json_schema=schema))
    return json.loads(s["answer"])


def main():
    for question in ["What carries water to the leaves?", "What protects a tree against fire?"]:
        found = answer.run(question=question, temperature=0).ret_value
        print(f"{question}\n  {found['answer']} [{found['source']}]: {PASSAGES[found['source']]}\n")


if __name__ == "__main__":
    main()
