"""A server of SGLang as a transport: text in, text out, by the fields that SGLang documents.

Owns: `/generate` from this side, and the log-probabilities of options by it. Such a server takes no
ids back with their text, so a program's history is sent as text each time.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from os.path import commonprefix
from typing import Any, Final

from ...runtime.errors import EngineError, InvalidRequest
from ...runtime.protocol import (
    Abilities,
    Chunk,
    Constraint,
    ControlAction,
    Ebnf,
    EngineInfo,
    FinishKind,
    FinishReason,
    GenerateRequest,
    Ids,
    JsonSchema,
    LogprobOptions,
    OptionScore,
    Prompt,
    Regex,
    SamplingParams,
    ScoreRequest,
    Scores,
    StructuralTag,
    TokenLogprob,
    Usage,
)
from ...runtime.templates import ChatTemplate
from .http import Http

ABILITIES: Final = Abilities(
    speaks="text",
    constraints=("Regex", "JsonSchema", "Ebnf", "StructuralTag"),
)
_MARGIN: Final = 8  # tokens before the prompt's end within which options may merge with it


class SglangTransport:
    def __init__(self, http: Http, model: str, template: ChatTemplate) -> None:
        self._http = http
        self._info = EngineInfo(
            model=model,
            context_length=0,
            vocab_size=0,
            max_tokens_in_cache=0,
            page_size=0,
            dtype="",
            chat_template=template.jinja(),
            special_tokens={},
            eos_ids=(),
            template_stop=template.stop_str,
            abilities=ABILITIES,
        )

    async def open(self) -> EngineInfo:
        return self._info

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        body = {
            "text": text_of(request.prompt),
            "sampling_params": sampling_dict(request.sampling),
            "stream": True,
            "rid": request.request_id,
            **_logprob_fields(request.logprobs),
        }
        samples = [_Sample(index) for index in range(request.sampling.n)]
        async with aclosing(self._http.events("/generate", body)) as events:
            async for event in events:
                for one in event if isinstance(event, list) else [event]:
                    yield samples[one.get("index", 0)].take(one)

    async def score(self, request: ScoreRequest) -> Scores:
        prompt = text_of(request.prompt)
        size = (await self._scored([prompt], -1))[0]["prompt_tokens"]
        start = max(size - _MARGIN, 0)
        found = await self._boundary(prompt, request.options, start)
        if found is None and start:
            found = await self._boundary(prompt, request.options, 0)
        if found is None:
            raise InvalidRequest(
                "prompt: nothing stands before the choices that they have in common", field="prompt"
            )
        rows, at = found
        options = []
        for row in rows:
            own = row[at:]
            alone: tuple[float | None, ...] = ()
            if request.unconditional:
                ids = [entry[1] for entry in own]
                alone = tuple(entry[0] for entry in await self._alone(ids))
            options.append(
                OptionScore(
                    tuple(entry[1] for entry in own), tuple(float(entry[0]) for entry in own), alone
                )
            )
        return Scores((), tuple(options), Usage(size, 0, 0, 0))

    async def control(self, action: ControlAction) -> dict[str, Any]:
        match action:
            case "stats":
                return dict(await self._http.get("/server_info"))
            case "flush_cache":
                answer = await self._http.post("/flush_cache")
                return dict(answer) if isinstance(answer, dict) else {}
            case _:
                raise InvalidRequest(
                    f"action: {action!r} is not possible from afar", field="action"
                )

    async def close(self) -> None:
        await self._http.close()

    # --- scoring -------------------------------------------------------------------------------

    async def _boundary(
        self, prompt: str, options: Sequence[str], start: int
    ) -> tuple[list[list[Any]], int] | None:
        """([log-probability, id, text] of each option's tokens from `start` on, where they leave
        the prompt's own). None if that lies before what was asked for."""
        metas = await self._scored([prompt, *(prompt + option for option in options)], start)
        alone, *joint = [meta["input_token_logprobs"] for meta in metas]
        ids = [[entry[1] for entry in row] for row in (alone, *joint)]
        at = min(len(commonprefix(ids)), *(len(row) - 1 for row in joint))
        # The first entry of an answer never has a log-probability.
        return (joint, at) if at > 0 else None

    async def _alone(self, ids: list[int]) -> list[list[Any]]:
        body = {
            "input_ids": [ids],
            "sampling_params": {"max_new_tokens": 0, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": 0,
        }
        [answer] = _list(await self._http.post("/generate", body))
        return list(answer["meta_info"]["input_token_logprobs"])

    async def _scored(self, texts: list[str], start: int) -> list[dict[str, Any]]:
        body: dict[str, Any] = {
            "text": texts,
            "sampling_params": {"max_new_tokens": 0, "temperature": 0},
        }
        if start >= 0:
            body |= {"return_logprob": True, "logprob_start_len": start}
        return [answer["meta_info"] for answer in _list(await self._http.post("/generate", body))]


def _list(answer: Any) -> list[Any]:
    return answer if isinstance(answer, list) else [answer]


class _Sample:
    """One sample's answer, which the server repeats from the start with each event."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._text = ""
        self._num_logprobs = 0
        self._is_first = True

    def take(self, event: dict[str, Any]) -> Chunk:
        text, meta = str(event["text"]), event["meta_info"]
        if not text.startswith(self._text):
            raise EngineError("the server took back text that it had sent")
        new, self._text = text[len(self._text) :], text
        logprobs = _entries(meta, "output")
        fresh, self._num_logprobs = logprobs[self._num_logprobs :], len(logprobs)
        prompt = _entries(meta, "input") if self._is_first else ()
        self._is_first = False
        return Chunk(
            index=self._index,
            text=new,
            token_ids=tuple(entry.token_id for entry in fresh),
            usage=Usage(
                meta.get("prompt_tokens", 0),
                meta.get("cached_tokens", 0),
                meta.get("completion_tokens", 0),
                0,
            ),
            logprobs=fresh,
            prompt_logprobs=prompt or None,
            finish=_finish(meta.get("finish_reason")),
        )


def _entries(meta: dict[str, Any], side: str) -> tuple[TokenLogprob, ...]:
    rows = meta.get(f"{side}_token_logprobs") or []
    tops = meta.get(f"{side}_top_logprobs") or [None] * len(rows)
    return tuple(
        TokenLogprob(
            row[1],
            row[0],
            tuple((entry[1], entry[0]) for entry in top or ()),
            _bytes(row[2]),
            tuple(_bytes(entry[2]) or b"" for entry in top or () if entry[2] is not None),
        )
        for row, top in zip(rows, tops, strict=True)
    )


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _finish(reason: dict[str, Any] | None) -> FinishReason | None:
    if reason is None:
        return None
    if reason["type"] == "abort":
        raise EngineError(f"the server aborted the request: {reason.get('message')}")
    return FinishReason(FinishKind(reason["type"]), reason.get("matched"))


# --- requests ----------------------------------------------------------------------------------


def text_of(prompt: Prompt) -> str:
    """A prompt that consists of text alone. InvalidRequest if it does not."""
    for part in prompt:
        if isinstance(part, Ids):
            raise InvalidRequest(
                "prompt: token ids mean nothing to a back end of text", field="prompt"
            )
    return "".join(part.text for part in prompt if not isinstance(part, Ids))


def _logprob_fields(options: LogprobOptions | None) -> dict[str, Any]:
    if options is None:
        return {}
    return {
        "return_logprob": True,
        "logprob_start_len": options.start,
        "top_logprobs_num": options.top,
        "return_text_in_logprobs": options.text,
    }


def sampling_dict(sampling: SamplingParams) -> dict[str, Any]:
    """In SGLang's names; what is at its default is left out where older servers do not know it."""
    values: dict[str, Any] = {
        "max_new_tokens": sampling.max_tokens,
        "min_new_tokens": sampling.min_tokens,
        "n": sampling.n,
        "stop": list(sampling.stop),
        "stop_token_ids": list(sampling.stop_token_ids),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "ignore_eos": sampling.ignore_eos,
        "skip_special_tokens": sampling.skip_special_tokens,
    }
    rare: dict[str, tuple[Any, Any]] = {
        "stop_regex": (list(sampling.stop_regex), []),
        "repetition_penalty": (sampling.repetition_penalty, 1.0),
        "no_stop_trim": (sampling.no_stop_trim, False),
        "logit_bias": ({str(id): bias for id, bias in sampling.logit_bias}, {}),
        "sampling_seed": (sampling.seed, None),
    }
    values |= {name: value for name, (value, idle) in rare.items() if value != idle}
    return values | _constraint(sampling.constraint)


def _constraint(constraint: Constraint | None) -> dict[str, str]:
    match constraint:
        case None:
            return {}
        case Regex(pattern):
            return {"regex": pattern}
        case JsonSchema(schema):
            return {"json_schema": schema}
        case Ebnf(text):
            return {"ebnf": text}
        case StructuralTag(text):
            return {"structural_tag": text}
        case _:
            raise InvalidRequest(
                f"constraint: {constraint!r} has no name in SGLang's API", field="constraint"
            )
