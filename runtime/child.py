"""What our child processes have in common: how they start, the words for how they ended, and errors
that survive the way between processes."""

import os
import pickle
import signal
import subprocess
import sys

from .errors import EngineError


def spawn(module: str, fd: int) -> "subprocess.Popen[bytes]":
    """`python -m module FD`: a child that inherits this descriptor and finds the same modules as
    its parent.

    In a session of its own, a Ctrl-C in the terminal does not reach it: the parent decides.
    """
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return subprocess.Popen(
        # -P: nothing in the working directory may stand before the parent's modules.
        [sys.executable, "-P", "-m", module, str(fd)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        pass_fds=(fd,),
        start_new_session=True,
    )


def ending(process: "subprocess.Popen[bytes]", name: str, patience: float) -> str:
    """How a child that closed its socket ended. `patience`: seconds for it to be gone."""
    try:
        code = process.wait(patience)
    except subprocess.TimeoutExpired:
        return f"{name} closed its socket"
    if code >= 0:
        return f"{name} ended with exit code {code}"
    try:
        number = signal.Signals(-code).name
    except ValueError:
        number = "unknown"
    return f"{name} was killed by signal {-code} ({number})"


def portable(error: Exception) -> Exception:
    """The error itself where it survives a pickle, else an EngineError that tells of it."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = None
    if type(copy) is type(error) and str(copy) == str(error):
        return error
    return EngineError(f"{type(error).__name__}: {error}")
