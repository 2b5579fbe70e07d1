"""A recording's requests asked again of an engine, and the first token that comes out otherwise.

Owns: the comparison. Every request is sent as it was recorded, with the seed that was drawn then;
so with the same model, numbers and version the same tokens come back.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..client import Client, Stream
from ..errors import SapwoodError
from ..protocol import Chunk, GenerateRequest, ScoreRequest, Scores
from .recording import Ask, RecordedRun, Recording

_AHEAD: Final = 16  # generations in flight
_SCORE_TOLERANCE: Final = 1e-4  # of a log-probability


@dataclass(frozen=True)
class Comparison:
    """One request's answers, then and now. `run`: its run's number; `number`: its place in it.

    `difference` None: all the same. `num_tokens`: of the recorded answer, all samples.
    """

    run: int
    program: str
    number: int
    num_tokens: int
    difference: str | None = None


def rerun(recording: Recording, client: Client) -> Iterator[Comparison]:
    """Compare every request that was answered, in the recording's order. What had failed or was
    closed early is compared as far as it came."""
    ahead: deque[tuple[RecordedRun, int, Ask, Stream | SapwoodError | None]] = deque()
    try:
        for run in recording.runs:
            for number, ask in enumerate(run.asks):
                ahead.append((run, number, ask, _started(ask, client)))
                if len(ahead) >= _AHEAD:
                    yield _compared(*ahead.popleft(), client)
        while ahead:
            yield _compared(*ahead.popleft(), client)
    finally:
        for *_, stream in ahead:
            if stream is not None and not isinstance(stream, SapwoodError):
                stream.close()


def _started(ask: Ask, client: Client) -> Stream | SapwoodError | None:
    """None: not a generation, or one that was refused then."""
    if ask.refusal is None and isinstance(ask.request, GenerateRequest):
        try:
            return client.generate(ask.request)
        except SapwoodError as error:
            return error
    return None


def _compared(
    run: RecordedRun,
    number: int,
    ask: Ask,
    stream: Stream | SapwoodError | None,
    client: Client,
) -> Comparison:
    found: str | None = None
    try:
        if isinstance(stream, SapwoodError):
            raise stream
        if stream is not None:
            found = _of_streams(ask, stream)
        elif isinstance(ask.request, ScoreRequest) and ask.scores is not None:
            found = _of_scores(ask.scores, client.score(ask.request).result())
    except SapwoodError as error:
        found = f"it fails now: {error}"
    tokens = sum(len(event.token_ids) for event in ask.events if isinstance(event, Chunk))
    return Comparison(run.number, run.info.program, number, tokens, found)


def _of_streams(ask: Ask, stream: Stream) -> str | None:
    now = list(stream)
    then = [event for event in ask.events if isinstance(event, Chunk)]
    whole = len(then) == len(ask.events)
    for index in range(ask.request.sampling.n if isinstance(ask.request, GenerateRequest) else 1):
        found = _of_samples(
            [chunk for chunk in then if chunk.index == index],
            [chunk for chunk in now if chunk.index == index],
            whole,
        )
        if found is not None:
            return f"sample {index}, {found}" if index else found
    return None


def _of_samples(then: list[Chunk], now: list[Chunk], whole: bool) -> str | None:
    old = [token for chunk in then for token in chunk.token_ids]
    new = [token for chunk in now for token in chunk.token_ids]
    at = next(
        (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b),
        min(len(old), len(new)),
    )
    if at == len(old) and (at == len(new) or not whole):
        return None
    was = f"was {old[at]}" if at < len(old) else "was the end"
    is_ = f"is {new[at]}" if at < len(new) else "is the end"
    return f"token {at} {was} and {is_}; {_texts(then, now)}"


def _texts(then: list[Chunk], now: list[Chunk]) -> str:
    """The texts from where they part, with a little before it."""
    old, new = ("".join(chunk.text for chunk in chunks) for chunks in (then, now))
    at = next(
        (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b),
        min(len(old), len(new)),
    )
    return (
        f"after {old[max(0, at - 30) : at]!r} the text was {old[at : at + 40]!r} "
        f"and is {new[at : at + 40]!r}"
    )


def _of_scores(then: Scores, now: Scores) -> str | None:
    for number, (old, new) in enumerate(zip(then.options, now.options, strict=True)):
        if old.token_ids != new.token_ids:
            return f"option {number} was {list(old.token_ids)} and is {list(new.token_ids)}"
        # Where `bound` decided early, what was left out may hang on less than the tolerance.
        for at, (a, b) in enumerate(zip(old.logprobs, new.logprobs, strict=False)):
            if abs(a - b) > _SCORE_TOLERANCE:
                return f"option {number}, token {at}: its log-probability was {a:.4f}, is {b:.4f}"
    return None
