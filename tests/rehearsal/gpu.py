"""A GPU whose tensors have shapes, types and a device, but no memory, to rehearse the GPU path on.

What a real one would refuse or suffer from raises here: operands on two devices, a CPU tensor given
to a Triton kernel, reading a value back in the middle of a step, copies that make the host wait.
Every Triton kernel is compiled for the GPU that is pretended, exactly as it would be launched, and
not run. What is copied to the host arrives as zeros.

Owns: that pretence. Knows nothing of engines; works in a process of its own, for it stays.
"""

import contextlib
import ctypes
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten


class Waits(RuntimeError):
    """The host would wait for the GPU here."""


def _is_gpu(device: object) -> bool:
    return device is not None and torch.device(device).type == "cuda"  # type: ignore[arg-type]


class PretendedGpu(TorchDispatchMode):
    """Tensors made on "cuda" have no memory, all others are real. `is_strict`: whether waiting is
    refused, as within a step."""

    def __init__(self) -> None:
        super().__init__()
        self.is_strict = False
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._pinned: set[int] = set()  # addresses of storages

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self._pinned.add(tensor.untyped_storage().data_ptr())
        return tensor

    @contextlib.contextmanager
    def strict(self) -> Iterator[None]:
        self.is_strict = True
        try:
            yield
        finally:
            self.is_strict = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves = tree_flatten((args, kwargs))[0]
        on_gpu = any(isinstance(leaf, FakeTensor) for leaf in leaves)
        if not on_gpu and not _is_gpu(kwargs.get("device")):
            return func(*args, **kwargs)
        if func is aten._to_copy.default:
            target = kwargs.get("device")
            if target is not None and not _is_gpu(target):
                return self._to_host(args[0], kwargs)
            self._check_source(args[0], kwargs.get("non_blocking", False))
        if func is aten.copy_.default:
            is_async = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            if not isinstance(args[0], FakeTensor):
                self._check_target(args[0], is_async)
                return args[0]
            self._check_source(args[1], is_async)
        if func is aten.randn.generator:  # no values: no generator
            func = aten.randn.default
            kwargs = {name: value for name, value in kwargs.items() if name != "generator"}
        with self._fake:
            pretended = tree_map(self._pretend, (args, kwargs))
            return func(*pretended[0], **pretended[1])

    def _pretend(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor):
            return self._fake.from_tensor(value)
        return value

    def _to_host(self, source: torch.Tensor, kwargs: Any) -> torch.Tensor:
        if self.is_strict:
            raise Waits(f"{tuple(source.shape)} {source.dtype} is read back")
        return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)

    def _check_target(self, target: torch.Tensor, is_async: bool) -> None:
        is_pinned = target.untyped_storage().data_ptr() in self._pinned
        if self.is_strict and not (is_async and is_pinned):
            raise Waits(f"{tuple(target.shape)} {target.dtype} is copied to the host and awaited")

    def _check_source(self, source: torch.Tensor, is_async: bool) -> None:
        if isinstance(source, FakeTensor) or not self.is_strict or source.dim() == 0:
            return
        is_pinned = source.untyped_storage().data_ptr() in self._pinned
        if not (is_async and is_pinned):
            raise Waits(f"{tuple(source.shape)} {source.dtype} is copied from pageable memory")


class _Event:
    def __init__(self, **options: object) -> None: ...

    def record(self, stream: object = None) -> None: ...

    def synchronize(self) -> None: ...

    def wait(self, stream: object = None) -> None: ...

    def query(self) -> bool:
        return True


class _Stream:
    def __init__(self, device: object = None, **options: object) -> None:
        self.device = torch.device("cuda", 0)

    def wait_stream(self, other: object) -> None: ...

    def wait_event(self, event: object) -> None: ...

    def synchronize(self) -> None: ...


class _Graph:
    num_replays = 0

    def replay(self) -> None:
        _Graph.num_replays += 1


class _Generator(torch.Generator):
    def __new__(cls, device: object = "cpu") -> "_Generator":
        return super().__new__(cls, "cpu")


class _Properties:
    """Of an H100."""

    name = "pretended"
    multi_processor_count = 132
    total_memory = 80 << 30
    major, minor = 9, 0


@contextlib.contextmanager
def _nothing(*args: object, **options: object) -> Iterator[None]:
    yield


@contextlib.contextmanager
def pretended_gpu(total_memory: int = 80 << 30) -> Iterator[PretendedGpu]:
    """Within it, "cuda" is such a GPU."""
    _allow_cuda()
    gpu = PretendedGpu()
    empty = torch.empty

    def empty_or_pinned(*args: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        made = empty(*args, **options)
        return gpu.pin(made.zero_()) if pin_memory else made

    stream = _Stream()
    for name, stand_in in {
        "Event": _Event,
        "Stream": _Stream,
        "CUDAGraph": _Graph,
        "graph": _nothing,
        "stream": _nothing,
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "current_stream": lambda device=None: stream,
        "graph_pool_handle": lambda: (0, 0),
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 1 << 30,
        "reset_peak_memory_stats": lambda device=None: None,
        "mem_get_info": lambda device=None: (total_memory, total_memory),
        "get_device_properties": lambda device=None: _Properties,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: _Properties.name,
    }.items():
        setattr(torch.cuda, name, stand_in)
    torch.empty = empty_or_pinned  # type: ignore[assignment]
    torch.Generator = _Generator  # type: ignore[misc]
    # What Triton asks a tensor: how its address is aligned.
    FakeTensor.data_ptr = lambda self: 256 + self.storage_offset() * self.itemsize  # type: ignore[method-assign]
    with gpu:
        yield gpu


def check_operands(arguments: tuple[Any, ...]) -> None:
    """Of a Triton launch."""
    for number, argument in enumerate(arguments):
        if isinstance(argument, torch.Tensor) and argument.device.type != "cuda":
            raise RuntimeError(f"argument {number} of a Triton kernel is on {argument.device}")


def _allow_cuda() -> None:
    if torch.version.cuda is not None:
        return
    package = Path(torch.__file__).parent
    source = Path(__file__).with_name("cuda_guard.cpp")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "cuda_guard.so"
        command = ["c++", "-std=c++20", "-O1", "-shared", "-fPIC", str(source), "-o", str(library)]
        where = [f"-I{package / 'include'}", f"-L{package / 'lib'}", "-lc10"]
        subprocess.run([*command, *where], check=True)
        ctypes.CDLL(str(library))
