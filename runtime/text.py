"""`TextCodec`: the only place that knows both text and token ids.

Owns: prompts to ids within the engine's limits, requests to wire requests, and the parts that turn
answers back into text. Knows no transport and no other request.
"""

import secrets
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Final

from .detokenizer import Detokenizer
from .errors import InvalidRequest
from .healing import num_tentative
from .protocol import (
    EngineInfo,
    GenerateRequest,
    Ids,
    Prompt,
    SamplingParams,
    Text,
    TokenLogprob,
)
from .token_table import TokenTable
from .tokenization import TextTokenizer
from .tokenizer import TokenizerFiles
from .wire import TokenRequest

_SHRINK = 4  # a normalizer may make text shorter: composed characters, at most this much


class TextCodec:
    """For one model; safe from any thread."""

    def __init__(self, files: TokenizerFiles, info: EngineInfo) -> None:
        self.info = info
        self._table = TokenTable.of(files)
        self._vocabulary = files.vocabulary
        self._tokenizer = TextTokenizer(files.tokenizer, files.special_token_ids)
        self._bos_id = files.bos_id if files.add_bos else None
        # Stands before a text that is scored with nothing before it.
        self.context_id = (
            files.bos_id if files.bos_id is not None else next(iter(files.eos_ids), None)
        )
        shrink = 1 if files.tokenizer.normalizer is None else _SHRINK
        self._max_token_bytes = self._table.max_bytes * shrink

    # --- text to ids --------------------------------------------------------------------------

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's tokens, with BOS before them if the tokenizer puts one and the prompt starts
        with text that does not begin with it.

        Raises InvalidRequest: nothing in it, longer than the context, an id outside the vocabulary.
        """
        ids = self._encode(prompt)
        if not ids:
            raise InvalidRequest(
                "prompt: it is empty, at least one token is needed", field="prompt"
            )
        return ids

    def encode_prefix(self, prompt: Prompt) -> tuple[int, ...]:
        """What stands before a text to come: as `encode`, but an empty prompt is no error. It is
        BOS where the tokenizer puts one, else no token at all."""
        return self._encode(prompt) or (() if self._bos_id is None else (self._bos_id,))

    def _encode(self, prompt: Prompt) -> tuple[int, ...]:
        self._check_size(prompt)
        ids: list[int] = []
        starts_with_text = False
        for run in _runs(prompt):
            if isinstance(run, Ids):
                self._check_ids(run.ids)
                ids += run.ids
            else:
                starts_with_text = starts_with_text or not ids
                ids += self._tokenizer.encode(run, after_ids=bool(ids))
        if starts_with_text and self._bos_id is not None and ids[:1] not in ([], [self._bos_id]):
            ids.insert(0, self._bos_id)
        self._check_length(len(ids))
        return tuple(ids)

    def _check_size(self, prompt: Prompt) -> None:
        """Refuses what is too long by its bytes alone, before it is tokenized."""
        num_ids = num_bytes = 0
        for part in prompt:
            if isinstance(part, Ids):
                num_ids += len(part.ids)
            elif isinstance(part, Text):
                num_bytes += _num_bytes(part.text)
            else:
                raise InvalidRequest(f"prompt: {part!r} is neither Ids nor Text", field="prompt")
        limit = self.info.context_length
        at_least = num_ids + -(-num_bytes // self._max_token_bytes)
        if at_least > limit:
            raise InvalidRequest(
                f"prompt: {num_bytes} bytes of text and {num_ids} token ids are at least "
                f"{at_least} tokens, the context length is {limit}",
                field="prompt",
            )

    def _check_length(self, num_tokens: int) -> None:
        limit = self.info.context_length
        if num_tokens > limit:
            raise InvalidRequest(
                f"prompt: {num_tokens} tokens, the context length is {limit}", field="prompt"
            )

    def _check_ids(self, ids: Sequence[int]) -> None:
        size = self.info.vocab_size
        try:
            values = array("q", ids)
        except (TypeError, OverflowError):
            bad: object = next(id for id in ids if not _is_small_integer(id))
        else:
            if not values or (min(values) >= 0 and max(values) < size):
                return
            bad = next(id for id in values if not 0 <= id < size)
        raise InvalidRequest(
            f"prompt: token id {bad!r} is outside the vocabulary of {size}", field="prompt"
        )

    # --- requests and answers -----------------------------------------------------------------

    def requests(self, request: GenerateRequest, new_id: Callable[[], str]) -> list[TokenRequest]:
        """One wire request per sample, each with an id of its own from `new_id`."""
        prompt_ids = self.encode(request.prompt)
        sampling = request.sampling
        tentative = self._num_tentative(request, prompt_ids) if request.heal else 0
        return [
            TokenRequest(
                id=new_id(),
                prompt_ids=prompt_ids,
                sampling=PEEK if peeks(request) else replace(sampling, n=1),
                stream=stream_key(sampling.seed, request.random_path, index),
                logprobs=request.logprobs,
                namespace=request.namespace,
                tentative=tentative,
            )
            for index in range(sampling.n)
        ]

    def _num_tentative(self, request: GenerateRequest, prompt_ids: tuple[int, ...]) -> int:
        """Of the last text alone: neither ids, nor text of the other kind before it. Tokens from
        `logprobs.start` on, whose log-probabilities are wanted, stay as they are numbered."""
        if request.sampling.max_tokens == 0:
            return 0
        text = _last_text(request.prompt)
        first = 0 if request.logprobs is None else max(request.logprobs.start - 1, 0)
        return num_tentative(prompt_ids[first:], text, self._vocabulary)

    def detokenizer(self, sampling: SamplingParams) -> Detokenizer:
        return Detokenizer(self._table, sampling)

    def spell(self, logprobs: Iterable[TokenLogprob]) -> tuple[TokenLogprob, ...]:
        return self._table.spell(logprobs)


PEEK: Final = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)
"""How one looks at what may come next: a token is drawn, and reported, and never taken."""


def peeks(request: GenerateRequest) -> bool:
    """Whether a request that generates nothing wants the likeliest next tokens told."""
    return request.sampling.max_tokens == 0 and bool(request.logprobs and request.logprobs.top)


def stream_key(seed: int | None, random_path: Sequence[int], index: int) -> int:
    """The 64-bit key of a sample's random numbers: the same wherever and whenever it runs. Without
    a seed, a new one each time."""
    if seed is None:
        return secrets.randbits(64)
    name = f"{seed}/{'.'.join(map(str, random_path))}/{index}"
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def _runs(prompt: Prompt) -> Iterable[Ids | list[Text]]:
    """The parts with neighbouring texts in one list and empty parts left out."""
    texts: list[Text] = []
    for part in prompt:
        if isinstance(part, Text):
            if part.text:
                texts.append(part)
        elif part.ids:
            if texts:
                yield texts
            texts = []
            yield part
    if texts:
        yield texts


def _last_text(prompt: Prompt) -> str:
    """The text that the prompt ends in, with all its neighbours of the same kind."""
    texts: list[str] = []
    special: bool | None = None
    for part in reversed(prompt):
        if part == Text("", getattr(part, "special", False)) or part == Ids(()):
            continue
        if not isinstance(part, Text) or special not in (None, part.special):
            break
        texts.append(part.text)
        special = part.special
    return "".join(reversed(texts))


def _num_bytes(text: str) -> int:
    if not isinstance(text, str):
        raise InvalidRequest(f"prompt: {text!r} is not a text", field="prompt")
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"prompt: character {error.start} is half of a surrogate pair, which no text may hold",
            field="prompt",
        ) from None


def _is_small_integer(value: object) -> bool:
    return isinstance(value, int) and -(2**63) <= value < 2**63
