"""Many prompts, one call: `run_batch` keeps their order, and the shared few-shot text is computed
once.

Look at `cached_tokens`: the first program pays for the examples, all others read their whole
pages of 16 tokens from the tree.
"""

import sapwood as sw

SHOTS = """Word: hot. Opposite: cold.
Word: tall. Opposite: short.
Word: loud. Opposite: quiet.
Word: rich. Opposite: poor.
"""


@sw.function
def opposite(s, word):
    s += SHOTS + f"Word: {word}. Opposite:"
    s += sw.gen("answer", max_tokens=6, stop=[".", "\n"], temperature=0)


def main():
    words = ["happy", "fast", "early", "dark", "strong", "wet"]
    for word, state in zip(words, opposite.run_batch([{"word": w} for w in words]), strict=True):
        meta = state.get_meta_info("answer")
        cached = f"{meta['cached_tokens']} of {meta['prompt_tokens']} prompt tokens cached"
        print(f"{word:<8}{state['answer'].strip():<10}{cached}")


if __name__ == "__main__":
    main()
