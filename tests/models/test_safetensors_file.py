"""One safetensors file, against the safetensors package and against damage."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from sapwood.runtime.models.errors import DamagedModel
from sapwood.runtime.models.safetensors_file import SafetensorsFile

TENSORS = {
    "matrix": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "half": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "brain": torch.arange(8, dtype=torch.bfloat16).reshape(2, 2, 2),
    "vector": torch.tensor([1, 2, 3], dtype=torch.int8),
    "scalar": torch.tensor(7, dtype=torch.int64),
    "größe": torch.ones(1),
}


def written(folder: Path, header: dict[str, Any], data: bytes = bytes(16)) -> Path:
    text = json.dumps(header).encode()
    path = folder / "made-up.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_what_the_package_wrote(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    file = SafetensorsFile(path)
    assert set(file.tensors) == set(TENSORS)
    with safe_open(path, framework="pt") as peer:
        for name, tensor in TENSORS.items():
            place = file.tensors[name]
            assert place.shape == tuple(tensor.shape)
            assert place.type_name == peer.get_slice(name).get_dtype()
            assert (
                file.raw(name).tobytes() == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
            )
    assert file.raw("brain").shape == (4, 4)
    assert file.raw("vector").shape == (1, 3)


def test_closed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    file = SafetensorsFile(path)
    view = file.raw("matrix")
    file.close()
    assert np.array_equal(view.view(np.float32), TENSORS["matrix"].numpy())  # stays valid
    with pytest.raises(ValueError, match="is closed"):
        file.raw("matrix")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_off_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DamagedModel, match="not a whole safetensors file") as caught:
        SafetensorsFile(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


GOOD = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "header",
    [
        [],
        3,
        {"t": []},
        {"t": {}},
        {"t": {**GOOD, "shape": 4}},
        {"t": {**GOOD, "shape": [2, 3]}},
        {"t": {**GOOD, "shape": ["2", "2"]}},
        {"t": {**GOOD, "dtype": "F16"}},
        {"t": {**GOOD, "data_offsets": [0]}},
        {"t": {**GOOD, "data_offsets": [4, 20]}},
        {"t": {**GOOD, "data_offsets": [-8, 8]}},
        {"t": {**GOOD, "data_offsets": [16, 0]}},
        {"t": {**GOOD, "data_offsets": ["0", "16"]}},
    ],
    ids=str,
)
def test_damaged_header(header: Any, tmp_path: Path) -> None:
    assert SafetensorsFile(written(tmp_path, {"t": GOOD})).raw("t").shape == (2, 8)
    with pytest.raises(DamagedModel, match="not a whole safetensors file"):
        SafetensorsFile(written(tmp_path, header))


def test_an_element_type_of_unknown_size_is_left_to_the_checkpoint(tmp_path: Path) -> None:
    path = written(tmp_path, {"t": {**GOOD, "dtype": "F4"}})
    assert SafetensorsFile(path).tensors["t"].type_name == "F4"
