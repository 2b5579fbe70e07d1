"""Meta info of a generation, in the words of SGLang's `meta_info`.

Owns: the translation from chunks to that dict. Pure.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from ..runtime.protocol import Chunk, TokenLogprob

LogprobEntry = list[Any]  # [log-probability or None, token id, text or None]


def gen_meta(
    request_id: str, chunks: Sequence[Chunk], seconds: float | None = None
) -> dict[str, Any]:
    """From one sample's chunks (at least one), in order. `seconds`: since the request was sent.

    Counts are those of the last chunk. Log-probability keys appear only if they were asked for.
    """
    last = chunks[-1]
    usage = last.usage
    finish = last.finish.as_dict(usage.completion_tokens) if last.finish is not None else None
    meta: dict[str, Any] = {
        "id": request_id,
        "finish_reason": finish,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "forced_tokens": usage.forced_tokens,
        "num_retractions": usage.num_preemptions,
    }
    if seconds is not None:
        meta["e2e_latency"] = seconds
    return meta | _logprob_meta(chunks)


def _logprob_meta(chunks: Sequence[Chunk]) -> dict[str, Any]:
    output = [entry for chunk in chunks for entry in chunk.logprobs]
    prompt = next((c.prompt_logprobs for c in chunks if c.prompt_logprobs is not None), None)
    meta: dict[str, Any] = {}
    if prompt is not None:
        meta["input_token_logprobs"] = [_entry(token) for token in prompt]
        if any(token.top for token in prompt):
            meta["input_top_logprobs"] = _tops(prompt)
    if output:
        meta["output_token_logprobs"] = [_entry(token) for token in output]
        meta["output_token_logprobs_length"] = len(output)
        if any(token.top for token in output):
            meta["output_top_logprobs"] = _tops(output)
    return meta


def _entry(token: TokenLogprob) -> LogprobEntry:
    return [token.logprob, token.token_id, _text(token.piece)]


def _tops(tokens: Iterable[TokenLogprob]) -> list[list[LogprobEntry] | None]:
    return [_top(token) if token.top else None for token in tokens]


def _top(token: TokenLogprob) -> list[LogprobEntry]:
    pieces: Sequence[bytes | None] = token.top_pieces or [None] * len(token.top)
    return [
        [logprob, token_id, _text(piece)]
        for (token_id, logprob), piece in zip(token.top, pieces, strict=True)
    ]


def _text(piece: bytes | None) -> str | None:
    return None if piece is None else piece.decode(errors="replace")
