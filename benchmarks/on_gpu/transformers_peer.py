"""transformers' continuous batching under the same work: paged, all requests at once."""

import inspect
from dataclasses import replace
from typing import Any

import transformers
from transformers import GenerationConfig

from .work import Run, Work


class Refused(Exception):
    """The peer did not do the work, and why."""


def run(model: transformers.PreTrainedModel, work: Work, prompts: list[list[int]]) -> Run:
    """Its own warm-up, and a short run before, are not counted: time begins when it takes the
    requests."""
    _answer(model, replace(work, num_output=2), prompts)
    return _answer(model, work, prompts)


def _answer(model: transformers.PreTrainedModel, work: Work, prompts: list[list[int]]) -> Run:
    config = GenerationConfig(
        max_new_tokens=work.num_output, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    options: dict[str, Any] = {"record_timestamps": True, "progress_bar": False}
    known = inspect.signature(model.generate_batch).parameters
    usable = {name: value for name, value in options.items() if name in known}
    outputs = list(model.generate_batch(prompts, config, **usable).values())
    if len(outputs) != len(prompts):
        raise Refused(f"{len(outputs)} of {len(prompts)} requests were answered")
    for output in outputs:
        if output.error is not None or len(output.generated_tokens) != work.num_output:
            raise Refused(output.error or f"{len(output.generated_tokens)} tokens came")
    begin = min(output.created_time for output in outputs)
    return Run([[at - begin for at in output.timestamps] for output in outputs])
