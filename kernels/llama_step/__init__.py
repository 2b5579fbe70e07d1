"""One step of a Llama-shaped decoder in native code: all layers of a mixed batch in one call.

Owns: the Python face of `llama_step.cpp`, numpy arrays in and out. The headers beside it own the
parts: `simd` (instructions), `pool` (threads), `weights` and `activations` (layouts), `gemm` and
`amx` (products), `norm`, `rope`, `kv` (the paged cache), `attention`, `plan` (who shares a read),
`model` and `step` (the phases). Knows no torch, no checkpoint format, no request.
"""

from .step import (
    KvFormat,
    LlamaStep,
    MatrixKind,
    Phase,
    Source,
    StepInputs,
    StepOutputs,
    StepShape,
    VectorKind,
    WeightFormat,
    load_library,
)

__all__ = [
    "KvFormat",
    "LlamaStep",
    "MatrixKind",
    "Phase",
    "Source",
    "StepInputs",
    "StepOutputs",
    "StepShape",
    "VectorKind",
    "WeightFormat",
    "load_library",
]
