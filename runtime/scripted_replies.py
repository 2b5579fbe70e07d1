"""What a script says, and the events and scores that it becomes. Knows no thread and no stream."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .client import Event
from .contenders import contenders
from .protocol import (
    Bound,
    Chunk,
    FinishKind,
    FinishReason,
    GenerateRequest,
    LogprobOptions,
    OptionScore,
    ScoreRequest,
    Scores,
    TokenLogprob,
    Usage,
)
from .toy_tokens import EOS_ID, decode, encode_prompt


@dataclass(frozen=True)
class Reply:
    """One sample's answer. Its text is `text + tail`: `text` becomes whole tokens, `tail` lies
    after the last of them.

    `chunk_size`: characters per chunk (None: all at once). `error`: ends the stream instead of a
    finish, after the chunks. `hold_after`: how many chunks go out before the rest waits for
    `ScriptedClient.release` (None: all).
    """

    text: str = ""
    tail: str = ""
    finish: FinishReason = FinishReason(FinishKind.STOP, EOS_ID)
    chunk_size: int | None = None
    cached_tokens: int = 0
    forced_tokens: int = 0
    error: BaseException | None = None
    hold_after: int | None = None


STALL = Reply(hold_after=0)
"""Never answers, until the stream is closed, the client dies or everything held is released."""

Answer = str | Reply | BaseException


def replies_of(answer: Answer | Sequence[Answer], n: int) -> list[Reply]:
    """A reply for each of n samples."""
    answers = [answer] * n if isinstance(answer, str | Reply | BaseException) else list(answer)
    assert len(answers) == n, f"the script gave {len(answers)} answers for n={n}"
    return [
        one if isinstance(one, Reply) else Reply(one) if isinstance(one, str) else Reply(error=one)
        for one in answers
    ]


def is_held(reply: Reply, position: int) -> bool:
    """Whether the event at this position of a sample waits for `release`."""
    return reply.hold_after is not None and position >= reply.hold_after


def events_of(request: GenerateRequest, index: int, reply: Reply) -> list[Event]:
    """One sample's events in order: its chunks, the last with the finish, or an error after
    them."""
    text = "" if request.sampling.max_tokens == 0 else reply.text
    tail = "" if request.sampling.max_tokens == 0 else reply.tail
    size = reply.chunk_size or max(len(text), 1)
    pieces = [text[i : i + size] for i in range(0, len(text), size)] or [""]
    prompt_ids = encode_prompt(request.prompt)
    options = request.logprobs
    events: list[Event] = []
    produced = 0
    for position, piece in enumerate(pieces):
        ids = tuple(piece.encode())
        produced += len(ids)
        last = position == len(pieces) - 1 and reply.error is None
        first = position == 0
        events.append(
            Chunk(
                index=index,
                text=piece + tail if last else piece,
                token_ids=ids,
                usage=Usage(len(prompt_ids), reply.cached_tokens, produced, reply.forced_tokens),
                logprobs=_logprobs(ids, options) if options else (),
                prompt_ids=prompt_ids if first else None,
                prompt_logprobs=(
                    _logprobs(prompt_ids[options.start :], options, options.start)
                    if first and options and options.start >= 0
                    else None
                ),
                finish=reply.finish if last else None,
                kept_ids=tuple(text.encode()) if last else (),
                tail=tail if last else "",
            )
        )
    if reply.error is not None:
        events = [*events[: None if text else 0], reply.error]
    return events


def scores_of(request: ScoreRequest, totals: Sequence[float]) -> Scores:
    """Each option's log-probability, in equal shares over its tokens. With a `bound`, of as many
    tokens of each as decide when all are scored one token further at a time."""
    prompt_ids = encode_prompt(request.prompt)
    options = []
    for option, total in zip(request.options, totals, strict=True):
        ids = tuple(option.encode())
        each = (total / len(ids),) * len(ids)
        alone = (None, *each[1:]) if request.unconditional else ()
        options.append(OptionScore(ids, each, alone))
    if request.bound is not None:
        options = _as_far_as_needed(request.bound, options)
    return Scores(prompt_ids, tuple(options), Usage(len(prompt_ids), 0, 0, 0))


def _as_far_as_needed(bound: Bound, options: Sequence[OptionScore]) -> list[OptionScore]:
    known = [replace(option, logprobs=()) for option in options]
    while len(left := contenders(bound, known)) > 1:
        further = {known[index].token_ids for index in left}  # equal options know the same
        known = [
            replace(now, logprobs=option.logprobs[: len(now.logprobs) + 1])
            if now.token_ids in further
            else now
            for now, option in zip(known, options, strict=True)
        ]
    return known


def _logprobs(
    ids: Sequence[int], options: LogprobOptions, start: int = 1
) -> tuple[TokenLogprob, ...]:
    """Made-up numbers; a prompt's first token, the one at position 0, has no log-probability."""
    return tuple(
        TokenLogprob(
            token,
            None if position + start == 0 else -0.5,
            tuple((token + rank, -0.5 - rank) for rank in range(options.top)),
            _piece(token) if options.text else None,
            tuple(_piece(token + rank) for rank in range(options.top)) if options.text else (),
        )
        for position, token in enumerate(ids)
    )


def _piece(token_id: int) -> bytes:
    return decode((token_id,)).encode() if token_id > 255 else bytes([token_id])
