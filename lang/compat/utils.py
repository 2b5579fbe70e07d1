"""SGLang's helpers for examples and benchmarks: files, pages, servers in the background.

Owns: them. Nothing of ours uses them.
"""

import base64
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from ...runtime.errors import EngineError, InvalidRequest
from ..state import ProgramState

_GRACE: Final = 30.0
_POLL: Final = 0.2


def read_jsonl(filename: str | Path) -> Iterator[Any]:
    """The JSON values of a file's lines; empty lines and comments (#) are left out."""
    with open(filename, encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                yield json.loads(line)


def dump_state_text(
    filename: str | Path, states: Sequence[ProgramState | str], mode: str = "w"
) -> None:
    """The texts of states, or texts, one after another under numbered lines."""
    with open(filename, mode, encoding="utf-8") as file:
        for index, state in enumerate(states):
            text = state if isinstance(state, str) else state.text()
            file.write(f"{'=' * 40} {index} {'=' * 40}\n{text}\n{'=' * 80}\n\n")


def download_and_cache_file(url: str, filename: str | Path | None = None) -> str:
    """The path of a copy of what is at `url`, fetched unless it is there already."""
    target = Path(tempfile.gettempdir(), url.rsplit("/", 1)[-1]) if filename is None else filename
    path = Path(target)
    if not path.exists():
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        with urllib.request.urlopen(url) as answer, open(part, "wb") as file:
            while piece := answer.read(1 << 16):
                file.write(piece)
        part.replace(path)
    return str(path)


class HttpAnswer:
    """What `http_request` gives back."""

    def __init__(self, status_code: int, content: bytes) -> None:
        self.status_code = status_code
        self.content = content

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return json.loads(self.content)


def http_request(
    url: str,
    json: Any = None,
    stream: bool = False,
    api_key: str | None = None,
    verify: bool | str | None = None,
    method: str | None = None,
) -> HttpAnswer:
    """A POST of JSON, or a GET without any; whatever the status, its answer."""
    import json as codec

    if stream:
        raise InvalidRequest("stream: use RuntimeEndpoint for streams", field="stream")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    data = None
    if json is not None:
        data = codec.dumps(json).encode()
        headers["Content-Type"] = "application/json; charset=utf-8"
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, context=_tls(verify)) as answer:
            return HttpAnswer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return HttpAnswer(error.code, error.read())


def _tls(verify: bool | str | None) -> Any:
    if verify is None or verify is True:
        return None
    import ssl

    if isinstance(verify, str):
        return ssl.create_default_context(cafile=verify)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def print_highlight(html_content: str) -> None:
    """In a notebook a coloured line, elsewhere a plain one."""
    print(html_content)


def launch_server_cmd(
    command: str, host: str = "0.0.0.0", port: int | None = None
) -> "tuple[subprocess.Popen[str], int]":
    """(the process, its port) of a server started in the background.

    `command`: SGLang's, "python -m sglang.launch_server --model-path M ..."; ours is started with
    the same options, and refuses by name those that it has not.
    """
    from ..backends.server_args import ServerArgs

    words = shlex.split(command)
    names = [word for word in words if word.startswith("--")]
    options: dict[str, Any] = {}
    for name in names:
        after = words[words.index(name) + 1 :]
        value: Any = after[0] if after and not after[0].startswith("--") else True
        options[name[2:].replace("-", "_")] = int(value) if str(value).isdigit() else value
    if port is None:
        port = options.pop("port", None) or _free_port()
    args = ServerArgs.of(**{**options, "host": host, "port": port})
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    process = subprocess.Popen(args.command(), text=True, env={**os.environ, "PYTHONPATH": path})
    return process, port


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for_server(base_url: str, timeout: float | None = None, process: Any = None) -> None:
    """Until the server answers. EngineError after `timeout` seconds, or if `process` ends."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            if http_request(f"{base_url}/health").status_code == 200:
                return
        except OSError:
            pass  # nobody listens yet
        if process is not None and process.poll() is not None:
            raise EngineError(f"the server ended with exit code {process.returncode}")
        if end is not None and time.monotonic() > end:
            raise EngineError(f"no server answered at {base_url} within {timeout} s")
        time.sleep(_POLL)


def terminate_process(process: "subprocess.Popen[Any]") -> None:
    """End a server that `launch_server_cmd` started."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def encode_image_base64(image_path: str | bytes) -> str:
    """An image's bytes, or those of the file at this path, in base64."""
    data = image_path if isinstance(image_path, bytes) else Path(image_path).read_bytes()
    return base64.b64encode(data).decode()


def load_image(image_file: object, *args: object, **kwargs: object) -> NoReturn:
    """Refused: no model here has vision."""
    raise InvalidRequest(f"load_image: {image_file!r}: no model here has vision", field="image")
