"""The default model in the formats that the peers read, made once from our own GGUF file.

Owns: `bf16.gguf` for llama.cpp and a bfloat16 folder in Hugging Face format for vLLM and
transformers, both from the same dequantised weights, beside the model in Sapwood's cache folder.
Knows no peer. `python benchmarks/peers/models.py` makes what is missing.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from sapwood._native import cache_dir
from sapwood.runtime.models.source import resolve_model


@dataclass(frozen=True)
class ModelFiles:
    """The same weights three times: as stored (Q4_1), and in bfloat16 for either family."""

    stored_gguf: Path
    bf16_gguf: Path
    hf_folder: Path

    def missing(self) -> bool:
        return not (self.bf16_gguf.is_file() and self.hf_folder.is_dir())


def model_files() -> ModelFiles:
    """Where the files are, or will be. Fetches the default model on first use."""
    folder = cache_dir() / "peers"
    return ModelFiles(resolve_model(None), folder / "bf16.gguf", folder / "hf-bf16")


def make(files: ModelFiles) -> None:
    """Write what is missing. Needs torch, transformers and gguf: run it in a process of its own."""
    files.bf16_gguf.parent.mkdir(parents=True, exist_ok=True)
    if not files.bf16_gguf.is_file():
        partial = files.bf16_gguf.with_suffix(".partial")
        write_bf16_gguf(files.stored_gguf, partial)
        os.replace(partial, files.bf16_gguf)
    if not files.hf_folder.is_dir():
        unfinished = files.hf_folder.with_suffix(".partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        write_hf_folder(unfinished)
        os.replace(unfinished, files.hf_folder)


def write_bf16_gguf(source: Path, target: Path) -> None:
    """`source` with every matrix in bfloat16; vectors stay float32, as llama.cpp converts them."""
    from gguf import GGMLQuantizationType as Kind
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
    from gguf.quants import dequantize, quantize

    reader = GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, architecture)
    written_by_writer = {"general.architecture", "general.file_type"}
    for field in reader.fields.values():
        if field.name in written_by_writer or field.name.startswith("GGUF."):
            continue
        kind, *inner = field.types
        item = inner[-1] if kind is GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=item)
    writer.add_file_type(LlamaFileType.MOSTLY_BF16)
    for tensor in reader.tensors:
        plain = dequantize(tensor.data, tensor.tensor_type)
        if plain.ndim == 1:
            writer.add_tensor(tensor.name, plain)
        else:
            writer.add_tensor(tensor.name, quantize(plain, Kind.BF16), raw_dtype=Kind.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_hf_folder(target: Path) -> None:
    """Weights as bfloat16 safetensors, with the tokenizer and the chat template."""
    import torch
    from transformers import PreTrainedTokenizerFast

    from sapwood.runtime.tokenizer import load_tokenizer

    sys.path.append(str(Path(__file__).parents[1]))
    from peer import load_peer

    files = load_tokenizer(resolve_model(None))
    model = load_peer(torch.bfloat16)
    model.config.bos_token_id = model.generation_config.bos_token_id = files.bos_id
    model.config.eos_token_id = model.generation_config.eos_token_id = files.eos_ids[0]
    model.config.pad_token_id = model.generation_config.pad_token_id = files.eos_ids[0]
    model.save_pretrained(target)
    PreTrainedTokenizerFast(
        tokenizer_object=files.tokenizer,
        chat_template=files.chat_template,
        model_max_length=files.context_length,
        **files.special,
    ).save_pretrained(target)


if __name__ == "__main__":
    make(model_files())
