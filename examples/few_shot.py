"""Few-shot classification: the examples are computed once, the answer is one of the labels.

Look at `probabilities`: `select` scores every label exactly, so a doubtful case shows as one.
"""

import sapwood as sw

LABELS = [" sport", " money", " food"]
SHOTS = """Headline: Late goal wins the cup
Topic: sport

Headline: Bank raises its rates again
Topic: money

Headline: The best soup of the winter
Topic: food

"""
HEADLINES = ["Striker signs for two more years", "Prices of bread fall", "Ten ways to cook rice"]


@sw.function
def topic(s, headline):
    s += SHOTS + f"Headline: {headline}\nTopic:"
    s += sw.select("topic", choices=LABELS)


def main():
    for state in topic.run_batch([{"headline": headline} for headline in HEADLINES]):
        shares = state.get_meta_info("topic")["probabilities"]
        told = ", ".join(
            f"{label.strip()} {p:.0%}" for label, p in zip(LABELS, shares, strict=True)
        )
        headline = state.text().removeprefix(SHOTS).split("\n")[0]
        print(f"{headline:<45}{state['topic'].strip():<8}{told}")


if __name__ == "__main__":
    main()
