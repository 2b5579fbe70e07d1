"""`Runtime`: a server in a process of its own, as a back end.

Owns: that process, from its start to its end.
"""

import atexit
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Final

from ...runtime.client import Client
from ...runtime.errors import EngineError, InvalidRequest
from ..options import seconds
from .endpoint import RuntimeEndpoint
from .server_args import ServerArgs

_GRACE: Final = 30.0  # seconds for the server to finish what runs
_SHOWN: Final = 20  # last lines of a server that did not start
_QUIET: Final = ("error", "critical")
_LEVELS: Final = ("debug", "info", "warning", *_QUIET)


class Runtime:
    """Starts `sapwood serve` on a free port and waits until it answers. A context manager, and a
    back end for programs; the server ends with it, at interpreter exit at the latest.

    `server_args`: the fields of `ServerArgs`. `log_level`: with "error" or "critical" the server's
    lines are not shown. Raises EngineError with its last lines where it does not start.
    """

    def __init__(
        self,
        log_level: str = "error",
        launch_timeout: float = 300.0,
        *args: Any,
        **server_args: Any,
    ) -> None:
        if log_level not in _LEVELS:
            raise InvalidRequest(
                f"log_level: {log_level!r} is none of {', '.join(_LEVELS)}", field="log_level"
            )
        limit = seconds("launch_timeout", launch_timeout)
        if len(args) < 3:
            server_args.setdefault("port", 0)
        self.server_args = ServerArgs.of(*args, **server_args)
        self._process = _Process(self.server_args, shows=log_level not in _QUIET)
        atexit.register(self.shutdown)
        try:
            self._endpoint = RuntimeEndpoint(self._process.ready(limit), self.server_args.api_key)
        except BaseException:
            self._process.stop()
            atexit.unregister(self.shutdown)
            raise

    @property
    def endpoint(self) -> RuntimeEndpoint:
        return self._endpoint

    @property
    def client(self) -> Client:
        return self._endpoint.client

    @property
    def url(self) -> str:
        return self._endpoint.url

    @property
    def pid(self) -> int:
        return self._process.pid

    def shutdown(self) -> None:
        """End the server. Safe to call twice."""
        endpoint = getattr(self, "_endpoint", None)
        if endpoint is not None:
            endpoint.close()
        self._process.stop()
        atexit.unregister(self.shutdown)

    close = shutdown

    def cache_prefix(self, prefix: str) -> None:
        self._endpoint.cache_prefix(prefix)

    def get_tokenizer(self) -> Any:
        """The model's tokenizer, as `transformers` has it."""
        from ...runtime.models.source import resolve_model
        from ...runtime.tokenizer import as_transformers, load_tokenizer

        return as_transformers(load_tokenizer(resolve_model(self.server_args.model_path)))

    async def async_generate(
        self, prompt: str, sampling_params: Mapping[str, Any] | None = None
    ) -> AsyncIterator[str]:
        """The text piece by piece."""
        from ...runtime.aio import AsyncBridge
        from ...runtime.native_format import sampling_from_dict
        from ...runtime.protocol import GenerateRequest, as_prompt

        sampling = sampling_from_dict(sampling_params or {})
        bridge = AsyncBridge(self.client)
        async with await bridge.generate(GenerateRequest(as_prompt(prompt), sampling)) as stream:
            async for chunk in stream:
                if chunk.text and chunk.index == 0:
                    yield chunk.text

    add_request = async_generate

    def generate(
        self,
        prompt: str | list[str],
        sampling_params: Mapping[str, Any] | None = None,
        return_logprob: bool | None = False,
        logprob_start_len: int | None = None,
        top_logprobs_num: int | None = None,
        lora_path: str | None = None,
        session_id: str | None = None,
    ) -> str:
        """The answer of `/generate`, as JSON text."""
        for name, value in (("lora_path", lora_path), ("session_id", session_id)):
            if value is not None:
                raise InvalidRequest(f"{name}: {value!r} is not supported", field=name)
        body: dict[str, Any] = {
            "text": prompt,
            "sampling_params": dict(sampling_params or {}),
            "return_logprob": bool(return_logprob),
        }
        for name, number in (
            ("logprob_start_len", logprob_start_len),
            ("top_logprobs_num", top_logprobs_num),
        ):
            if number is not None:
                body[name] = number
        return json.dumps(self._endpoint.call("/generate", body))

    def encode(self, prompt: str | list[str]) -> str:
        """Refused: our models have no embeddings to give."""
        raise InvalidRequest(f"encode: {prompt!r}: this model makes no embeddings", field="prompt")

    async def get_server_info(self) -> dict[str, Any]:
        import asyncio

        return await asyncio.to_thread(self._endpoint.get_server_info)

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()


class _Process:
    """The server's process and its output, which is read to the end lest it block."""

    def __init__(self, args: ServerArgs, *, shows: bool) -> None:
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        self._process = subprocess.Popen(
            args.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # a Ctrl-C in the terminal is ours to answer
        )
        self._shows = shows
        self._last: deque[str] = deque(maxlen=_SHOWN)
        self._url: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="sapwood-server", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self, timeout: float | None) -> str:
        """The URL, once the server listens."""
        try:
            url = self._url.get(timeout=timeout)
        except queue.Empty:
            raise EngineError(f"the server was not ready within {timeout:g} s") from None
        if url is None:
            code = self._process.wait()
            raise EngineError(f"the server ended ({code}): {' | '.join(self._last)}")
        return url

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._last.append(line.rstrip())
            if self._shows:
                sys.stderr.write(line)
            found = re.match(r"ready: .* at (http://\S+)", line)
            if found:
                self._url.put(found[1])
        self._url.put(None)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(_GRACE)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()
