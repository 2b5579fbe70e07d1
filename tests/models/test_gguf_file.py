"""The header reader against the gguf package's own, and against damaged files."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapwood.runtime.models.errors import DamagedModel, ModelNotFound, UnsupportedModel
from sapwood.runtime.models.gguf_file import TENSOR_TYPES, GgufFile

Maker = Callable[..., Path]


def assert_same_as_gguf_package(path: Path) -> None:
    peer = gguf.GGUFReader(path)
    file = GgufFile(path)
    fields = {k: v.contents() for k, v in peer.fields.items() if not k.startswith("GGUF.")}
    assert file.metadata == fields
    without = GgufFile(path, with_strings=False)
    assert without.metadata == {
        key: value
        for key, value in fields.items()
        if not (isinstance(value, list) and isinstance(value[0], str))
    }
    assert without.tensors == file.tensors
    assert list(file.tensors) == [tensor.name for tensor in peer.tensors]
    for tensor in peer.tensors:
        place = file.tensors[tensor.name]
        assert place.type_name == tensor.tensor_type.name
        assert place.shape == tuple(int(n) for n in reversed(tensor.shape))
        assert (place.offset, place.num_bytes) == (tensor.data_offset, tensor.n_bytes)
        assert file.raw(tensor.name).tobytes() == tensor.data.tobytes()


def test_every_metadata_type(make_gguf: Maker, tmp_path: Path) -> None:
    path = tmp_path / "types.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("a", 200)
    writer.add_int8("b", -100)
    writer.add_uint16("c", 60_000)
    writer.add_int16("d", -30_000)
    writer.add_uint32("e", 4_000_000_000)
    writer.add_int32("f", -2_000_000_000)
    writer.add_float32("g", 0.1)
    writer.add_bool("h", True)
    writer.add_string("i", "größe 漢字")
    writer.add_uint64("j", 2**63)
    writer.add_int64("k", -(2**62))
    writer.add_float64("l", 0.1)
    writer.add_array("m", ["", "x", "🙂"])
    writer.add_array("n", [1, -2, 3])
    writer.add_array("o", [0.5, 1.5])
    writer.add_array("p", [True, False])
    writer.add_tensor("t", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("u", np.arange(5, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert_same_as_gguf_package(path)


def test_tensor_types_are_the_formats() -> None:
    for number, (name, block, block_bytes) in TENSOR_TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == (name, block, block_bytes)


def test_the_default_model(default_model: Path) -> None:
    assert_same_as_gguf_package(default_model)


def test_an_alignment_of_its_own(make_gguf: Maker) -> None:
    path = make_gguf({"general.alignment": 128}, {"t": np.arange(7, dtype=np.float32)})
    assert GgufFile(path).tensors["t"].offset % 128 == 0
    assert_same_as_gguf_package(path)


def test_get_is_typed(make_gguf: Maker) -> None:
    file = GgufFile(make_gguf({"n": 3, "x": 0.5, "s": "text", "b": True}))
    assert (file.get("n", int), file.get("n", float), file.get("x", float)) == (3, 3.0, 0.5)
    assert (file.get("s", str), file.get("b", bool), file.get("none", int, 9)) == ("text", True, 9)
    with pytest.raises(DamagedModel, match="key none is missing"):
        file.get("none", int)
    for key, kind in (("s", int), ("b", int), ("x", int), ("n", bool)):
        with pytest.raises(DamagedModel, match=f": {key} is .*, not {kind.__name__}"):
            file.get(key, kind)


def test_closed(make_gguf: Maker) -> None:
    file = GgufFile(make_gguf({}, {"t": np.ones(4, np.float32)}))
    view = file.raw("t")
    file.close()
    assert view.view(np.float32).tolist() == [[1, 1, 1, 1]]  # a view handed out stays valid
    with pytest.raises(ValueError, match="is closed"):
        file.raw("t")


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no such file"):
        GgufFile(tmp_path / "none.gguf")
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(DamagedModel, match="is empty"):
        GgufFile(tmp_path / "empty.gguf")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_off_anywhere(make_gguf: Maker, data: st.DataObject) -> None:
    metadata = {"s": "some text", "a": ["one", "two"], "n": [1, 2, 3]}
    whole = make_gguf(metadata, {"t": np.ones((4, 8), np.float32)}).read_bytes()
    path = make_gguf(metadata).with_name("cut.gguf")
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole) - 1))])
    with pytest.raises(DamagedModel) as caught:
        GgufFile(path, with_strings=data.draw(st.booleans()))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def patched(make_gguf: Maker, change: Callable[[bytearray], None]) -> Path:
    path = make_gguf({"s": "text"}, {"t": np.ones((4, 8), np.float32)})
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def test_what_is_not_a_gguf_file(make_gguf: Maker) -> None:
    def pickle(content: bytearray) -> None:
        content[:4] = b"PK\x03\x04"

    with pytest.raises(DamagedModel, match="not a GGUF file"):
        GgufFile(patched(make_gguf, pickle))


@pytest.mark.parametrize("version", [1, 4, 3 << 24])
def test_unknown_version(make_gguf: Maker, version: int) -> None:
    def change(content: bytearray) -> None:
        content[4:8] = struct.pack("<I", version)

    with pytest.raises(UnsupportedModel, match=f"GGUF version {version} "):
        GgufFile(patched(make_gguf, change))


def test_unknown_tensor_type(make_gguf: Maker) -> None:
    def change(content: bytearray) -> None:
        place = content.index(b"t" + struct.pack("<I", 2)) + 1 + 4 + 16
        content[place : place + 4] = struct.pack("<I", 9999)

    with pytest.raises(UnsupportedModel, match="tensor t has the unknown type number 9999"):
        GgufFile(patched(make_gguf, change))


def test_text_that_is_not_utf8(make_gguf: Maker) -> None:
    def change(content: bytearray) -> None:
        place = content.index(b"text")
        content[place] = 0xFF

    with pytest.raises(DamagedModel, match="is not UTF-8"):
        GgufFile(patched(make_gguf, change))


@pytest.mark.parametrize("with_strings", [True, False])
@pytest.mark.parametrize("length", [2**63 - 1, 2**64 - 1, 10_000])
def test_a_string_that_ends_beyond_the_file(
    make_gguf: Maker, length: int, with_strings: bool
) -> None:
    for position in range(2):
        path = make_gguf({"a": ["first one", "last one"]}, {"t": np.ones(4, np.float32)})
        content = bytearray(path.read_bytes())
        place = content.index((b"first one", b"last one")[position])
        content[place - 8 : place] = struct.pack("<Q", length)
        path.write_bytes(content)
        with pytest.raises(DamagedModel, match="cut off inside the header"):
            GgufFile(path, with_strings=with_strings)


def test_huge_counts_end_at_the_end_of_the_file(make_gguf: Maker) -> None:
    def change(content: bytearray) -> None:
        content[8:24] = struct.pack("<QQ", 2**60, 2**60)

    with pytest.raises(DamagedModel):
        GgufFile(patched(make_gguf, change))


def test_metadata_of_the_wrong_alignment(make_gguf: Maker) -> None:
    metadata: dict[str, Any] = {"general.alignment": 32}
    path = make_gguf(metadata, {"t": np.ones(4, np.float32)})
    content = path.read_bytes().replace(struct.pack("<II", 4, 32), struct.pack("<II", 4, 33))
    path.write_bytes(content)
    with pytest.raises(DamagedModel, match="alignment 33 is not a power of two"):
        GgufFile(path)
