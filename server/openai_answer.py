"""Chunks and answers to OpenAI's objects: pure translation, no IO.

Owns: the shapes of chat and completion answers, whole and streamed, of their log-probabilities and
their usage.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.protocol import Chunk, FinishReason, Prompt, Text, TokenLogprob, Usage
from .answers import Answer

MIN_LOGPROB = -9999.0  # JSON has no -infinity; this is what OpenAI writes


@dataclass(frozen=True)
class Head:
    """What every object of one answer repeats. `created`: seconds since 1970."""

    answer_id: str
    created: int
    model: str

    def object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.answer_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def usage_dict(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def finish_name(finish: FinishReason | None) -> str | None:
    return None if finish is None else finish.kind.value


# --- chat --------------------------------------------------------------------------------------


def chat_answer(
    head: Head, answers: Sequence[Answer], usage: Usage, *, logprobs: bool
) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": chat_logprobs(answer.logprobs) if logprobs else None,
            "finish_reason": finish_name(answer.finish),
        }
        for index, answer in enumerate(answers)
    ]
    return {**head.object("chat.completion", choices), "usage": usage_dict(usage)}


def chat_opening(head: Head, index: int) -> dict[str, Any]:
    """The first event of a sample: who speaks."""
    return _chat_event(head, index, {"role": "assistant", "content": ""}, None, None)


def chat_event(head: Head, chunk: Chunk, *, logprobs: bool) -> dict[str, Any] | None:
    """What `chunk` says to the reader; None when that is nothing."""
    shown = chat_logprobs(chunk.logprobs) if logprobs and chunk.logprobs else None
    if not chunk.text and shown is None and chunk.finish is None:
        return None
    delta = {"content": chunk.text} if chunk.text else {}
    return _chat_event(head, chunk.index, delta, shown, finish_name(chunk.finish))


def _chat_event(
    head: Head,
    index: int,
    delta: dict[str, Any],
    logprobs: dict[str, Any] | None,
    finish: str | None,
) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return head.object("chat.completion.chunk", [choice])


def chat_logprobs(entries: Iterable[TokenLogprob]) -> dict[str, Any]:
    content = [
        {
            **_spelled(entry.piece or b"", entry.logprob),
            "top_logprobs": [_spelled(piece, logprob) for piece, logprob in _tops(entry)],
        }
        for entry in entries
    ]
    return {"content": content, "refusal": None}


def _spelled(piece: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": token_text(piece), "logprob": written(logprob), "bytes": list(piece)}


def _tops(entry: TokenLogprob) -> list[tuple[bytes, float]]:
    """The likeliest tokens' bytes with their log-probabilities, the likeliest first."""
    logprobs = (logprob for _, logprob in entry.top)
    return list(zip(entry.top_pieces, logprobs, strict=True))


def token_text(piece: bytes) -> str:
    """A token as text; bytes that are no whole character show as U+FFFD."""
    return piece.decode(errors="replace")


def written(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, MIN_LOGPROB)


# --- completions -------------------------------------------------------------------------------


def completion_answer(
    head: Head,
    answers: Sequence[Answer],
    usage: Usage,
    *,
    echoed: Sequence[Prompt | None],
    logprobs: bool,
) -> dict[str, Any]:
    """`echoed`: by choice, the prompt that its text is to repeat."""
    choices = []
    for index, (answer, prompt) in enumerate(zip(answers, echoed, strict=True)):
        entries = (*answer.prompt_logprobs, *answer.logprobs)
        shown = completion_logprobs(entries, Offsets()) if logprobs else None
        text = prompt_text(prompt, answer.prompt_logprobs) + answer.text
        choices.append(_completion_choice(index, text, shown, answer.finish))
    return {**head.object("text_completion", choices), "usage": usage_dict(usage)}


def completion_event(
    head: Head, index: int, chunk: Chunk, *, echoed: Prompt | None, offsets: "Offsets | None"
) -> dict[str, Any] | None:
    """One event; None when `chunk` says nothing.

    `echoed`: the prompt to repeat before this chunk. `offsets`: where the choice's next token
    begins, given when log-probabilities were asked for.
    """
    prompt_logprobs = chunk.prompt_logprobs or ()
    entries = (*prompt_logprobs, *chunk.logprobs)
    shown = completion_logprobs(entries, offsets) if offsets and entries else None
    text = prompt_text(echoed, prompt_logprobs) + chunk.text
    if not text and shown is None and chunk.finish is None:
        return None
    return head.object("text_completion", [_completion_choice(index, text, shown, chunk.finish)])


def prompt_text(prompt: Prompt | None, spelled: Iterable[TokenLogprob]) -> str:
    """What a prompt says; one of ids is read off its log-probabilities, which were asked for."""
    match prompt:
        case None:
            return ""
        case (Text(text),):
            return text
        case _:
            return token_text(b"".join(entry.piece or b"" for entry in spelled))


def _completion_choice(
    index: int, text: str, logprobs: dict[str, Any] | None, finish: FinishReason | None
) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": finish_name(finish),
    }


@dataclass
class Offsets:
    """Where the next token begins in one choice's text, in characters. Written only by
    `completion_logprobs`."""

    position: int = 0


def completion_logprobs(entries: Iterable[TokenLogprob], offsets: Offsets) -> dict[str, Any]:
    texts, logprobs, tops, starts = [], [], [], []
    for entry in entries:
        text = token_text(entry.piece or b"")
        texts.append(text)
        logprobs.append(written(entry.logprob))
        top: dict[str, float | None] = {}
        for piece, logprob in _tops(entry):
            top.setdefault(token_text(piece), written(logprob))  # two tokens may show as one text
        tops.append(top)
        starts.append(offsets.position)
        offsets.position += len(text)
    return {
        "tokens": texts,
        "token_logprobs": logprobs,
        "top_logprobs": tops,
        "text_offset": starts,
    }
