"""Compile, cache and load C++ sources: from source files to a `ctypes.CDLL`. Standard library only.

Owns: the user's cache folder, the tiers (sets of vector instructions a kernel is written for), the
choice of compiler and flags, the lock between processes. Any folder may import it. Knows nothing of
what the sources compute.

Environment: `SAPWOOD_NATIVE=0` switches native code off; `SAPWOOD_TIER=avx2` takes a lower tier
than the machine has; `SAPWOOD_SANITIZE=address,undefined` makes a checked build; `CXX` names the
compiler.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

COMPILERS: Final = ("c++", "g++", "clang++")
_COMPILE_SECONDS: Final = 900.0

# A multiply and an add become one fma only where the source says so, and sums keep their order:
# results may depend on the tier, never on the compiler's mood.
_COMMON: Final = (
    "-std=c++20 -shared -fPIC -pthread -fvisibility=hidden "
    "-fno-math-errno -fno-trapping-math -ffp-contract=off"
).split()


class NativeUnavailable(Exception):
    """Why there is no native code here, in one line. The callers have another path."""


@dataclass(frozen=True)
class Tier:
    """`needs`: the processor's flags, as Linux names them, without which the code would not run.
    `extras`: flag -> option, for instructions that a source may use where they are there."""

    name: str
    needs: frozenset[str]
    options: tuple[str, ...]
    extras: Mapping[str, str] = field(default_factory=dict)


_AVX2: Final = frozenset({"avx2", "fma", "f16c"})
_AVX2_OPTIONS: Final = ("-mavx2", "-mfma", "-mf16c")
_AVX512: Final = _AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
_AVX512_OPTIONS: Final = (*_AVX2_OPTIONS, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq")
_BF16: Final = _AVX512 | {"avx512_vnni", "avx512_bf16"}
_BF16_OPTIONS: Final = (*_AVX512_OPTIONS, "-mavx512vnni", "-mavx512bf16")
_AMX: Final = frozenset({"amx_tile", "amx_bf16", "amx_int8"})
_ARM_EXTENSIONS: Final = {"asimddp": "dotprod", "asimdhp": "fp16", "bf16": "bf16", "i8mm": "i8mm"}

TIERS: Final = (  # the best first
    Tier("amx", _BF16 | _AMX, (*_BF16_OPTIONS, "-mamx-tile", "-mamx-bf16", "-mamx-int8")),
    Tier("avx512bf16", _BF16, _BF16_OPTIONS),
    Tier("avx512", _AVX512, _AVX512_OPTIONS, {"avx512_vnni": "-mavx512vnni"}),
    Tier("avx2", _AVX2, _AVX2_OPTIONS),
    Tier("neon", frozenset({"asimd"}), ()),
    Tier("generic", frozenset(), ()),
)


@dataclass(frozen=True)
class NativeStatus:
    """`reason`: why there is none, or why this tier. `compiler`: path and version. `flags`: the
    compiler's."""

    available: bool
    tier: str | None
    compiler: str | None
    reason: str
    cache_folder: Path
    flags: tuple[str, ...]


@dataclass(frozen=True)
class _Toolchain:
    """What sources are compiled with here. `version`: the first line the compiler says of itself;
    `why`: why this tier."""

    compiler: tuple[str, ...]
    version: str
    tier: Tier
    flags: tuple[str, ...]
    why: str


def load(
    name: str,
    sources: Sequence[Path],
    *,
    depends: Sequence[Path] = (),
    say: Callable[[str], None] | None = None,
) -> ctypes.CDLL:
    """The shared object made of `sources`, compiled if the cache does not hold it yet.

    Headers beside a source, and `depends`, count as part of it. `say` hears one line before a
    compilation, which takes seconds. Where the cache folder cannot be written, or code there cannot
    be run, the object is compiled for this process alone. Raises NativeUnavailable (switched off,
    no compiler, compilation failed), ValueError (an environment variable that makes no sense here).
    """
    toolchain = _toolchain()
    folders = dict.fromkeys(source.absolute().parent for source in sources)
    inputs = [*sources, *(header for folder in folders for header in sorted(folder.glob("*.h")))]
    key = _key(toolchain, [*inputs, *depends])
    command = (
        *(*toolchain.compiler, *toolchain.flags),
        *(f"-I{folder}" for folder in folders),
        *(str(source.absolute()) for source in sources),
    )
    stem = f"{name}-{toolchain.tier.name}-{key}"

    def compile_to(target: Path) -> None:
        if say is not None:
            say(f"compiling {name} for this machine ({toolchain.tier.name}), once")
        _compile(name, command, target)

    try:
        return _load_cached(cache_dir() / "native", stem, compile_to)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        _log.warning("%s is compiled anew at each start: %s", name, error)
    try:
        with tempfile.TemporaryDirectory(prefix="sapwood-") as folder:
            target = Path(folder) / f"{stem}.so"
            compile_to(target)
            return ctypes.CDLL(str(target))  # stays mapped when the file is gone
    except OSError as error:
        raise NativeUnavailable(f"{name} was compiled but cannot be loaded: {error}") from error


def status() -> NativeStatus:
    """What `load` would do on this machine. Compiles and writes nothing. Raises ValueError (an
    environment variable that makes no sense here)."""
    try:
        folder = cache_dir() / "native"
    except RuntimeError:  # nobody's home
        folder = Path(tempfile.gettempdir())
    try:
        chosen = _toolchain()
    except NativeUnavailable as error:
        return NativeStatus(False, None, None, str(error), folder, ())
    compiler = f"{shlex.join(chosen.compiler)} ({chosen.version})"
    return NativeStatus(True, chosen.tier.name, compiler, chosen.why, folder, chosen.flags)


def cache_dir() -> Path:
    """Where models and compiled code are kept: `$SAPWOOD_HOME`, else `sapwood` in the system's
    cache folder.

    Does not create it. Raises RuntimeError where the user has no home.
    """
    if home := os.environ.get("SAPWOOD_HOME"):
        return Path(home).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "sapwood"


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The processor's feature flags as Linux names them; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


# --- the toolchain: compiler, tier, flags ---


def _toolchain() -> _Toolchain:
    wanted = os.environ.get("SAPWOOD_NATIVE", "")
    if wanted not in ("", "0", "1"):
        raise ValueError(f"SAPWOOD_NATIVE is 0 or 1, not {wanted!r}")
    if wanted == "0":
        raise NativeUnavailable("switched off by SAPWOOD_NATIVE=0")
    if sys.platform == "win32":
        raise NativeUnavailable("native code is built on Linux and macOS only")
    compiler, version = _compiler()
    tier, why = _tier(compiler)
    macros = (f"-DSAPWOOD_TIER_{tier.name.upper()}=1",)
    flags = (*_COMMON, *_optimization(), *macros, *_options(tier, _features()))
    return _Toolchain(compiler, version, tier, flags, why)


def _compiler() -> tuple[tuple[str, ...], str]:
    """Its command and version."""
    named = os.environ.get("CXX")
    for candidate in (named,) if named else COMPILERS:
        words = shlex.split(candidate)
        found = shutil.which(words[0]) if words else None
        if found:
            command = (found, *words[1:])
            return command, _version(command)
    if named:
        raise NativeUnavailable(f"CXX={named}: there is no such compiler")
    raise NativeUnavailable(f"no C++ compiler found ({', '.join(COMPILERS)}): install g++ or clang")


@functools.cache
def _version(compiler: tuple[str, ...]) -> str:
    try:
        answer = subprocess.run([*compiler, "--version"], capture_output=True, text=True)
    except OSError as error:
        raise NativeUnavailable(f"{compiler[0]} does not run: {error.strerror}") from error
    lines = answer.stdout.splitlines()
    if answer.returncode or not lines:
        raise NativeUnavailable(f"{shlex.join(compiler)} --version failed")
    return lines[0].strip()


def _tier(compiler: tuple[str, ...]) -> tuple[Tier, str]:
    """The tier to compile for, and why that one."""
    features = _features()
    usable = [tier for tier in TIERS if tier.needs <= features]
    if usable[0].name == "amx" and not _amx_is_granted():
        usable = usable[1:]
    wanted = os.environ.get("SAPWOOD_TIER")
    if wanted:
        return _wanted_tier(wanted, usable, features), f"SAPWOOD_TIER={wanted} asks for it"
    too_new: list[str] = []
    for tier in usable:
        if _understands(compiler, _options(tier, features)):
            skipped = f"; the compiler is too old for {', '.join(too_new)}" if too_new else ""
            return tier, f"the best for this processor{skipped}"
        too_new.append(tier.name)
    raise NativeUnavailable(f"{shlex.join(compiler)} compiles for another kind of processor")


def _wanted_tier(wanted: str, usable: Sequence[Tier], features: frozenset[str]) -> Tier:
    known = {tier.name: tier for tier in TIERS}
    if wanted not in known:
        raise ValueError(f"SAPWOOD_TIER={wanted}: the tiers are {', '.join(known)}")
    tier = known[wanted]
    if tier in usable:
        return tier
    lacking = ", ".join(sorted(tier.needs - features)) or "the system's permission to use it"
    raise ValueError(f"SAPWOOD_TIER={wanted}: this machine lacks {lacking}")


def _features() -> frozenset[str]:
    # Every 64-bit Arm processor has Advanced SIMD, also where the system lists no flags.
    is_arm = platform.machine() in ("aarch64", "arm64")
    return cpu_flags() | {"asimd"} if is_arm else cpu_flags()


def _options(tier: Tier, features: frozenset[str]) -> tuple[str, ...]:
    extras = tuple(option for flag, option in tier.extras.items() if flag in features)
    if tier.name == "neon" and {"asimddp", "atomics"} <= features:  # at least Armv8.2
        extensions = [name for flag, name in _ARM_EXTENSIONS.items() if flag in features]
        extras += ("-march=armv8.2-a+" + "+".join(extensions),)
    return (*tier.options, *extras)


@functools.cache
def _understands(compiler: tuple[str, ...], options: tuple[str, ...]) -> bool:
    command = [*compiler, *options, "-E", "-x", "c++", os.devnull, "-o", os.devnull]
    return subprocess.run(command, capture_output=True).returncode == 0


@functools.cache
def _amx_is_granted() -> bool:
    """Ask Linux for the tile registers: a process must, once, before it uses them."""
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return bool(ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0)


def _optimization() -> tuple[str, ...]:
    sanitizers = os.environ.get("SAPWOOD_SANITIZE")
    if not sanitizers:
        return ("-O3",)
    checks = (f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
    return ("-O1", "-g", *checks, "-DSAPWOOD_CHECKED=1")


# --- the cache ---


def _key(toolchain: _Toolchain, inputs: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for word in (*toolchain.compiler, toolchain.version, *toolchain.flags):
        digest.update(word.encode() + b"\0")
    for path in inputs:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:20]


def _load_cached(folder: Path, stem: str, compile_to: Callable[[Path], None]) -> ctypes.CDLL:
    """Raises OSError where the folder cannot be written or what lies there cannot be loaded."""
    target = folder / f"{stem}.so"
    if not _is_whole(target):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{stem}.lock"):
            if not _is_whole(target):
                _write(target, compile_to)
    return ctypes.CDLL(str(target))


def _is_whole(target: Path) -> bool:
    """Whether the object is there as it was written. Loading half a file can kill the process."""
    try:
        return _stamp_path(target).read_text() == _sha256(target)
    except (OSError, UnicodeDecodeError):
        return False


def _write(target: Path, compile_to: Callable[[Path], None]) -> None:
    """Compile beside `target`, then put it in place. Called with the lock held, so whatever else
    of its name lies there is a killed process's."""
    for left in target.parent.glob(f"{target.stem}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.stem}.partial-", dir=target.parent) as folder:
        made = Path(folder) / target.name
        compile_to(made)
        stamp = _stamp_path(made)
        stamp.write_text(_sha256(made))
        stamp.replace(_stamp_path(target))
        made.replace(target)


def _stamp_path(target: Path) -> Path:
    return target.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file; the system drops the lock when its owner dies."""
    if sys.platform == "win32":
        raise OSError("no file locks here")
    import fcntl

    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(name: str, command: Sequence[str], target: Path) -> None:
    full = [*command, "-o", str(target)]
    try:
        answer = subprocess.run(full, capture_output=True, text=True, timeout=_COMPILE_SECONDS)
    except subprocess.TimeoutExpired:
        raise NativeUnavailable(
            f"compiling {name} took longer than {_COMPILE_SECONDS:.0f} s"
        ) from None
    except OSError as error:
        raise NativeUnavailable(f"{command[0]} does not run: {error.strerror}") from error
    if answer.returncode:
        _log.debug("%s failed:\n%s", shlex.join(full), answer.stderr)
        raise NativeUnavailable(f"compiling {name} failed: {_first_error(answer.stderr)}")


def _first_error(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return (errors or lines or ["the compiler said nothing"])[0]
