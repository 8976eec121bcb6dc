"""A weights file is either well-formed from end to end, or invalid; the host never trusts a length that it claims."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from sandbox.failure import Faulted
from sandbox.weights import count_parameters

GOOD = save({"a": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.bfloat16), "scalar": torch.zeros(())})


def counted(content: bytes, folder: Path) -> int:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return count_parameters(path)


def forged(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(shape: list[int], offsets: list[int], **more: object) -> Mapping[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": offsets, **more}


def test_elements_of_every_tensor_are_counted(tmp_path: Path) -> None:
    assert counted(GOOD, tmp_path) == 3 * 4 + 5 + 1
    assert counted(forged({"a": tensor([2], [0, 8])}, bytes(8)), tmp_path) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95",
        b"\xff" * 64,
        forged({}, length=2**63),
        forged({}),
        forged([]),
        forged({"a": tensor([2], [0, 8])}),
        forged({"a": tensor([2], [0, 8])}, bytes(9)),
        forged({"a": tensor([2], [4, 12])}, bytes(12)),
        forged({"a": tensor([2], [0, 8]), "b": tensor([2], [4, 12])}, bytes(12)),
        forged({"a": tensor([3], [0, 8])}, bytes(8)),
        forged({"a": tensor([-2], [0, 8])}, bytes(8)),
        forged({"a": tensor([2**60, 2**60], [0, 8])}, bytes(8)),
        forged({"a": tensor([2], [0, 8], code="import os")}, bytes(8)),
        forged({"a": {**tensor([2], [0, 8]), "dtype": "pickle"}}, bytes(8)),
        (5000).to_bytes(8, "little") + b"[" * 5000,
    ],
)
def test_a_forged_file_is_invalid(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(Faulted):
        counted(content, tmp_path)


@given(at=st.integers(0, len(GOOD) - 1), flip=st.integers(1, 255), cut=st.integers(0, len(GOOD)))
def test_a_damaged_file_is_invalid_or_another_well_formed_one(
    at: int, flip: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    damaged = bytearray(GOOD)
    damaged[at] ^= flip
    for content in (bytes(damaged), GOOD[:cut]):
        try:
            assert counted(content, folder) >= 0
        except Faulted:
            continue
        assert len(content) == len(GOOD)
