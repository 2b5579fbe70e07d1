"""Native code: compiled once, by one process, for this machine, and refused in one line."""

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sapwood import _native
from sapwood._native import NativeUnavailable, load, status

SOURCE = """
#include "amount.h"
extern "C" __attribute__((visibility("default"))) int increased(int n) { return n + AMOUNT; }
extern "C" __attribute__((visibility("default"))) int is_checked() {
#ifdef SAPWOOD_CHECKED
  return 1;
#else
  return 0;
#endif
}
"""
AVX2 = {"avx2", "fma", "f16c"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
BF16 = AVX512 | {"avx512_vnni", "avx512_bf16"}
AMX = BF16 | {"amx_tile", "amx_bf16", "amx_int8"}

needs_compiler = pytest.mark.skipif(not status().available, reason=status().reason)
pytestmark = needs_compiler


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source beside a header, and an empty cache."""
    for name in ("SAPWOOD_NATIVE", "SAPWOOD_TIER", "SAPWOOD_SANITIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAPWOOD_HOME", str(tmp_path / "cache"))
    (tmp_path / "amount.h").write_text("#define AMOUNT 1\n")
    path = tmp_path / "increase.cpp"
    path.write_text(SOURCE)
    return path


def compiler_script(path: Path, before: str) -> str:
    """A compiler that runs `before` in the shell, then the real one."""
    real = _native._compiler()[0]
    path.write_text(f'#!/bin/sh\n{before}\nexec {" ".join(real)} "$@"\n')
    path.chmod(0o755)
    return str(path)


def objects(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "native").glob("*.so"))


def test_compiles_once_and_again_when_a_header_changes(source: Path, tmp_path: Path) -> None:
    told: list[str] = []
    assert load("increase", [source], say=told.append).increased(4) == 5
    assert load("increase", [source], say=told.append).increased(4) == 5
    assert told == [f"compiling increase for this machine ({status().tier}), once"]
    (tmp_path / "amount.h").write_text("#define AMOUNT 3\n")
    assert load("increase", [source], say=told.append).increased(4) == 7
    assert len(told) == 2 and len(objects(tmp_path)) == 2


def test_what_a_source_depends_on_elsewhere_counts(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "other.h"
    other.parent.mkdir()
    told: list[str] = []
    for text in ("", "", "// changed"):
        other.write_text(text)
        load("increase", [source], depends=[other], say=told.append)
    assert len(told) == 2


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", None])
def test_a_damaged_object_is_made_again(source: Path, tmp_path: Path, damage: bytes | None) -> None:
    assert load("increase", [source]).increased(4) == 5
    (made,) = objects(tmp_path)
    whole = made.read_bytes()
    made.unlink()  # a new file: this process still has the old one mapped
    if damage is None:
        made.write_bytes(whole[: len(whole) // 2])
    else:
        made.write_bytes(damage)
    told: list[str] = []
    assert load("increase", [source], say=told.append).increased(4) == 5
    assert len(told) == 1 and made.stat().st_size == len(whole)


def test_what_a_killed_compilation_left_is_removed(source: Path, tmp_path: Path) -> None:
    load("increase", [source])
    (made,) = objects(tmp_path)
    made.unlink()
    left = made.parent / f"{made.stem}.partial-killed"
    left.mkdir()
    load("increase", [source])
    names = {path.name for path in made.parent.iterdir()}
    assert names == {made.name, f"{made.stem}.sha256", f"{made.stem}.lock"}


def test_an_error_in_the_source_is_one_line(source: Path, tmp_path: Path) -> None:
    source.write_text("int f() { return nothing_of_that_name; }\nint g() { return 1 }\n")
    with pytest.raises(NativeUnavailable) as raised:
        load("broken", [source])
    told = str(raised.value)
    assert told.startswith("compiling broken failed: ") and "nothing_of_that_name" in told
    assert "\n" not in told
    assert objects(tmp_path) == []


@pytest.mark.parametrize("where", ["file", "homeless"])
def test_a_cache_that_cannot_be_written_costs_a_compilation(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    if where == "file":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SAPWOOD_HOME", str(tmp_path / "file"))
    else:
        monkeypatch.delenv("SAPWOOD_HOME")
        monkeypatch.setattr(Path, "expanduser", homeless)
        assert status().available
    assert load("increase", [source]).increased(4) == 5
    assert "increase is compiled anew at each start" in caplog.text


def homeless(path: Path) -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_two_processes_compile_once(source: Path, tmp_path: Path) -> None:
    counted = f'case "$*" in *increase.cpp*) echo x >> {tmp_path}/compilations; sleep 1;; esac'
    program = (
        "import pathlib, sapwood._native as n;"
        f"print(n.load('increase', [pathlib.Path({str(source)!r})]).increased(4))"
    )
    environment = {**os.environ, "CXX": compiler_script(tmp_path / "cxx", counted)}
    command = [sys.executable, "-c", program]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in running] == ["5", "5"]
    assert (tmp_path / "compilations").read_text() == "x\n"


def test_no_compiler(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NativeUnavailable, match=r"no C\+\+ compiler found"):
        load("increase", [source])
    assert not status().available and "no C++ compiler found" in status().reason


@pytest.mark.parametrize(
    ("variable", "value", "error", "told"),
    [
        ("SAPWOOD_NATIVE", "0", NativeUnavailable, "switched off by SAPWOOD_NATIVE=0"),
        ("SAPWOOD_NATIVE", "no", ValueError, "SAPWOOD_NATIVE is 0 or 1, not 'no'"),
        ("SAPWOOD_TIER", "sse9", ValueError, "SAPWOOD_TIER=sse9: the tiers are amx, avx512bf16"),
        ("CXX", "/no/such/c++", NativeUnavailable, "CXX=/no/such/c++: there is no such compiler"),
        ("CXX", "false", NativeUnavailable, "false --version failed"),
        ("SAPWOOD_SANITIZE", "nonsense", NativeUnavailable, "compiling increase failed: "),
    ],
)
def test_refusals(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    error: type[Exception],
    told: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(error) as raised:
        load("increase", [source])
    assert told in str(raised.value)
    if error is ValueError:
        with pytest.raises(ValueError) as raised:
            status()
        assert told in str(raised.value)
    elif "compiling" not in told:
        assert not status().available and told in status().reason


def test_a_lower_tier_can_be_taken(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("increase", [source])
    monkeypatch.setenv("SAPWOOD_TIER", "generic")
    assert load("increase", [source]).increased(4) == 5
    assert "SAPWOOD_TIER=generic asks for it" in status().reason
    assert not [flag for flag in status().flags if flag.startswith("-m")]
    assert [path.name.split("-")[1] for path in objects(tmp_path)].count("generic") == 1


def test_the_checked_build_is_another_object(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load("increase", [source]).is_checked() == 0
    # Unlike the address sanitizer's, this one's runtime need not be loaded first.
    monkeypatch.setenv("SAPWOOD_SANITIZE", "undefined")
    assert load("increase", [source]).is_checked() == 1
    assert len(objects(tmp_path)) == 2


@pytest.mark.parametrize(
    ("machine", "flags", "granted", "tier", "options"),
    [
        ("x86_64", AMX, True, "amx", {"-mamx-tile", "-mavx512bf16"}),
        ("x86_64", AMX, False, "avx512bf16", {"-mavx512bf16", "-mavx512vnni"}),
        ("x86_64", AMX - {"amx_bf16"}, True, "avx512bf16", set()),
        ("x86_64", AVX512 | {"avx512_vnni"}, True, "avx512", {"-mavx512vnni"}),
        ("x86_64", AVX512, True, "avx512", {"-mavx512dq"}),
        ("x86_64", AVX512 - {"avx512bw"}, True, "avx2", {"-mavx2", "-mfma"}),
        ("x86_64", {"avx"}, True, "generic", set()),
        ("riscv64", set(), True, "generic", set()),
        ("arm64", set(), True, "neon", set()),
        ("aarch64", {"asimd", "asimddp", "atomics", "i8mm"}, True, "neon",
         {"-march=armv8.2-a+dotprod+i8mm"}),
    ],
)  # fmt: skip
def test_tiers(
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    flags: set[str],
    granted: bool,
    tier: str,
    options: set[str],
) -> None:
    monkeypatch.delenv("SAPWOOD_TIER", raising=False)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(_native, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(_native, "_amx_is_granted", lambda: granted)
    monkeypatch.setattr(_native, "_understands", lambda compiler, options: True)
    found = status()
    assert (found.tier, found.reason) == (tier, "the best for this processor")
    assert options <= set(found.flags) and f"-DSAPWOOD_TIER_{tier.upper()}=1" in found.flags


def test_a_tier_that_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "cpu_flags", lambda: frozenset(AVX512 | {"avx512_vnni"}))
    monkeypatch.setenv("SAPWOOD_TIER", "avx512bf16")
    with pytest.raises(ValueError, match="bf16: this machine lacks avx512_bf16$"):
        status()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the options are x86's")
def test_an_old_compiler_gets_the_tier_it_knows(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = 'case "$*" in *-mavx512bf16*) echo "error: unrecognized" >&2; exit 1;; esac'
    monkeypatch.setattr(_native, "cpu_flags", lambda: frozenset(BF16))
    monkeypatch.setenv("CXX", compiler_script(tmp_path / "old", refuses))
    assert status().tier == "avx512"
    assert status().reason.endswith("; the compiler is too old for avx512bf16")


def test_symbols_are_hidden_unless_exported(source: Path) -> None:
    source.write_text(SOURCE + 'extern "C" int secret() { return 1; }\n')
    library = load("increase", [source])
    assert isinstance(library, ctypes.CDLL) and library.increased(1) == 2
    with pytest.raises(AttributeError):
        _ = library.secret
