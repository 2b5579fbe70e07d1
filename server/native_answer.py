"""The samples of one native request, each in its place."""

from typing import Any

from ..runtime.native_format import NativeAnswer
from ..runtime.protocol import Chunk, GenerateRequest, Usage

ABORTED = {"type": "abort", "message": "the request was aborted", "status_code": 499}


class Sample:
    """One sample of one prompt. `place`: in the answer, where samples of one prompt stand side by
    side."""

    def __init__(self, request: GenerateRequest, index: int, place: int) -> None:
        self.place = place
        self._index = index
        self._answer = NativeAnswer(request.request_id, request.logprobs)
        self._prompt_ids: tuple[int, ...] | None = None
        self._is_aborted = False
        self.is_finished = False

    def add(self, chunk: Chunk) -> None:
        self._answer.add(chunk)
        self.is_finished = chunk.finish is not None
        if chunk.prompt_ids is not None:
            self._prompt_ids = chunk.prompt_ids

    def abort(self) -> None:
        """What has come so far is the answer."""
        if self._prompt_ids is None:
            self._answer.add(Chunk(self._index, "", (), Usage(0, 0, 0, 0)))
        self._is_aborted = True

    def as_dict(self, *, with_prompt_ids: bool) -> dict[str, Any]:
        """What is known so far."""
        shown = self._answer.as_dict()
        if self._is_aborted:
            shown["meta_info"]["finish_reason"] = ABORTED
        if with_prompt_ids:
            shown["prompt_token_ids"] = list(self._prompt_ids or ())
        return shown


def samples(requests: list[GenerateRequest]) -> list[list[Sample]]:
    """The samples of every request, with nothing in them yet."""
    table: list[list[Sample]] = []
    place = 0
    for request in requests:
        num = request.sampling.n
        table.append([Sample(request, index, place + index) for index in range(num)])
        place += num
    return table
