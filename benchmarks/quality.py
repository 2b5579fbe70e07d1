"""What a number format costs in quality: each setting of the engine's model next to float32.

    python benchmarks/quality.py [--dtype fp32,bf16] [--tokens 20000] [--output benchmarks/results]

Reference: transformers in float32 on the dequantised weights of the default model. Text: the files
in `benchmarks/text/`, in windows of 512 tokens, each with a context of its own; a window's first
token is not predicted. Decoding: 64 greedy tokens of each of 20 prompts, all rows in one batch,
where the reference judges every step in one pass over the setting's own answer.

Reported of each setting: perplexity; mean, 99th percentile and largest KL divergence (nats) of the
next-token distribution from the reference's; how often the likeliest token is the same; KL and
likeliest token of the decode steps too; how many answers are the reference's own greedy answer,
and after how many tokens they part (a near tie is enough, so this moves by chance). Prints
markdown, and writes it and the same figures as JSON.
"""

import argparse
import json
import math
import platform
import resource
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sapwood.runtime.machine import wait_patiently

wait_patiently()  # before torch starts its threads
# ruff: noqa: E402
import torch
import transformers
from quality_models import CANDIDATES, Candidate, Reference
from tokenizers import Tokenizer

from sapwood.runtime.models.source import resolve_model
from sapwood.runtime.tokenizer import load_tokenizer

WINDOW = 512  # tokens
ANSWER = 64  # tokens
TEXTS = Path(__file__).parent / "text"
PROMPTS = [
    f"{verb} {noun}."
    for verb in ("Describe", "Write one sentence about", "List three facts on", "A poem:")
    for noun in ("the sea", "a small town", "prime numbers", "winter", "my dog Rex")
]


class Drift:
    """How a model's distributions differ from the reference's, position by position."""

    def __init__(self) -> None:
        self.kl = torch.empty(0)  # nats, float32 [n]
        self.same_choice = torch.empty(0)  # 1 where the likeliest token is the same, else 0
        self.loss = torch.empty(0)  # nats, of the token that followed
        self.reference_loss = torch.empty(0)

    def add(self, wanted: torch.Tensor, got: torch.Tensor, targets: torch.Tensor) -> None:
        """Logits float32 [n, vocab] of both; targets int64 [n]: the tokens that followed."""
        for first in range(0, len(wanted), 64):  # never two more copies of all logits
            rows = slice(first, first + 64)
            p, q = wanted[rows].log_softmax(-1), got[rows].log_softmax(-1)
            followed = targets[rows].unsqueeze(1)
            self._extend(
                (p.exp() * (p - q)).sum(-1),
                (p.argmax(-1) == q.argmax(-1)).float(),
                -q.gather(1, followed).squeeze(1),
                -p.gather(1, followed).squeeze(1),
            )

    def _extend(
        self,
        kl: torch.Tensor,
        same_choice: torch.Tensor,
        loss: torch.Tensor,
        reference_loss: torch.Tensor,
    ) -> None:
        self.kl = torch.cat((self.kl, kl))
        self.same_choice = torch.cat((self.same_choice, same_choice))
        self.loss = torch.cat((self.loss, loss))
        self.reference_loss = torch.cat((self.reference_loss, reference_loss))

    @classmethod
    def merged(cls, parts: Iterable["Drift"]) -> "Drift":
        whole = cls()
        for part in parts:
            whole._extend(part.kl, part.same_choice, part.loss, part.reference_loss)
        return whole


def perplexity(loss: torch.Tensor) -> float:
    return math.exp(loss.double().mean())


@dataclass(frozen=True)
class Quality:
    """The figures of one setting: KL in nats, the same choices as shares of the positions."""

    setting: str
    positions: int
    perplexity: float
    reference_perplexity: float
    perplexity_by_text: dict[str, tuple[float, float]]  # the setting's, the reference's
    kl_mean: float
    kl_p99: float
    kl_max: float
    same_choice: float
    decode_kl_mean: float
    decode_kl_max: float
    decode_same_choice: float
    same_answers: int  # of len(PROMPTS)
    tokens_until_difference: float  # mean of the answers, ANSWER where there is none


def windows(tokenizer: Tokenizer, tokens: int) -> list[tuple[str, list[int]]]:
    """(text's name, token ids): windows of about `tokens` tokens in all, the same share of every
    text."""
    texts = {
        path.stem: tokenizer.encode(path.read_text(), add_special_tokens=False).ids
        for path in sorted(TEXTS.glob("*.txt"))
    }
    available = sum(map(len, texts.values()))
    share = min(tokens / available, 1)
    found = []
    for name, ids in texts.items():
        kept = ids[: math.ceil(len(ids) * share)]
        found += [(name, kept[i : i + WINDOW]) for i in range(0, len(kept) - 1, WINDOW)]
    return found


def read_text(
    reference: Reference, candidate: Candidate, pieces: list[tuple[str, list[int]]]
) -> dict[str, Drift]:
    """By text."""
    drifts = {name: Drift() for name, _ in pieces}
    for name, ids in pieces:
        candidate.clear()
        (got,) = candidate.logits({0: ids})
        drifts[name].add(reference.logits(ids)[:-1], got[:-1], torch.tensor(ids[1:]))
    return drifts


def decode(
    reference: Reference, candidate: Candidate, prompts: list[list[int]]
) -> tuple[Drift, list[int]]:
    """Greedy answers of all prompts side by side: the drift of their steps, and how many tokens of
    each answer are the reference's own greedy answer."""
    candidate.clear()
    answers = [list(prompt) for prompt in prompts]
    steps = [torch.stack([part[-1] for part in candidate.logits(dict(enumerate(prompts)))])]
    for _ in range(ANSWER - 1):
        for answer, row in zip(answers, steps[-1], strict=True):
            answer.append(int(row.argmax()))
        last = {row: answer[-1:] for row, answer in enumerate(answers)}
        steps.append(torch.cat(candidate.logits(last)))
    drift, equal = Drift(), []
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        wanted = reference.logits(answer)[len(prompt) - 1 :]
        got = torch.stack([step[row] for step in steps])
        chosen = got.argmax(-1)
        drift.add(wanted, got, chosen)
        differs = (wanted.argmax(-1) != chosen).nonzero()
        # Up to the first other choice the reference has decoded this very answer.
        equal.append(int(differs[0]) if len(differs) else ANSWER)
    return drift, equal


def measure(
    setting: str,
    reference: Reference,
    pieces: list[tuple[str, list[int]]],
    prompts: list[list[int]],
) -> Quality:
    candidate = CANDIDATES[setting](len(PROMPTS), WINDOW)  # one at a time, for the memory's sake
    texts = read_text(reference, candidate, pieces)
    steps, equal = decode(reference, candidate, prompts)
    whole = Drift.merged(texts.values())
    return Quality(
        setting=setting,
        positions=len(whole.kl),
        perplexity=perplexity(whole.loss),
        reference_perplexity=perplexity(whole.reference_loss),
        perplexity_by_text={
            name: (perplexity(drift.loss), perplexity(drift.reference_loss))
            for name, drift in texts.items()
        },
        kl_mean=float(whole.kl.double().mean()),
        kl_p99=float(whole.kl.quantile(0.99)),
        kl_max=float(whole.kl.max()),
        same_choice=float(whole.same_choice.mean()),
        decode_kl_mean=float(steps.kl.double().mean()),
        decode_kl_max=float(steps.kl.max()),
        decode_same_choice=float(steps.same_choice.mean()),
        same_answers=sum(count == ANSWER for count in equal),
        tokens_until_difference=statistics.mean(equal),
    )


def as_markdown(found: Sequence[Quality], header: str) -> str:
    names = list(found[0].perplexity_by_text)
    lines = [
        "# Quality of the number formats",
        "",
        header,
        "",
        f"Reference: transformers, float32, perplexity {found[0].reference_perplexity:.4f}. KL in "
        "nats. What the columns mean: `benchmarks/quality.py`.",
        "",
        "| setting | perplexity | KL mean | p99 | max | same choice "
        "| decode: KL mean | max | same choice | same answers | tokens until another |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {q.setting} | {q.perplexity:.4f} | {q.kl_mean:.2g} | {q.kl_p99:.2g} | {q.kl_max:.2g} "
        f"| {q.same_choice:.2%} | {q.decode_kl_mean:.2g} | {q.decode_kl_max:.2g} "
        f"| {q.decode_same_choice:.2%} | {q.same_answers} of {len(PROMPTS)} "
        f"| {q.tokens_until_difference:.1f} of {ANSWER} |"
        for q in found
    ]
    rows = {"reference": [pair[1] for pair in found[0].perplexity_by_text.values()]}
    rows |= {q.setting: [pair[0] for pair in q.perplexity_by_text.values()] for q in found}
    lines += ["", f"| perplexity by text | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    lines += [
        f"| {setting} | {' | '.join(f'{value:.3f}' for value in row)} |"
        for setting, row in rows.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", default=",".join(CANDIDATES), help="comma-separated settings")
    parser.add_argument("--tokens", type=int, default=20_000, help="of text, at most")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    settings = options.dtype.split(",")
    if unknown := set(settings) - set(CANDIDATES):
        parser.error(f"--dtype: {', '.join(sorted(unknown))} is none of {', '.join(CANDIDATES)}")

    begin = time.perf_counter()
    tokenizer = load_tokenizer(resolve_model(None)).tokenizer
    pieces = windows(tokenizer, options.tokens)
    prompts = [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in PROMPTS]
    reference = Reference()
    with torch.inference_mode():
        found = [measure(setting, reference, pieces, prompts) for setting in settings]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    header = (
        f"SmolLM2-135M-Instruct, {found[0].positions:,} predictions in windows of {WINDOW} tokens, "
        f"{len(PROMPTS)} greedy answers of {ANSWER} tokens; {platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}; {time.perf_counter() - begin:.0f} s, "
        f"peak memory {peak:,} MiB."
    )
    report = as_markdown(found, header)
    print(report)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "quality.md").write_text(report)
    figures = {"about": header, "settings": [asdict(q) for q in found]}
    (options.output / "quality.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
