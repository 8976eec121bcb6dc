"""Looks at a collected weights file without loading it.

The format is safetensors (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON header
{name: {dtype, shape, data_offsets}}, then the tensors without gaps. There is nothing in it that could be executed.
"""

import json
from math import prod
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from records import FailureKind
from sandbox.failure import Faulted

HEADER_BYTES = 8 * 2**20
TENSORS = 100_000
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
BITS |= {"I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64}
Size = Annotated[int, Field(ge=0, le=2**48)]


class Tensor(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    dtype: Literal[
        "BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "I64", "U64", "F64"
    ]
    shape: Annotated[list[Size], Field(max_length=16)]
    data_offsets: Annotated[list[Size], Field(min_length=2, max_length=2)]


TENSOR: TypeAdapter[Tensor] = TypeAdapter(Tensor)


def count_parameters(path: Path) -> int:
    """Check the file from end to end, and count the elements of all tensors.

    Raises:
        Faulted: it is not a well-formed safetensors file (invalid).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(HEADER_BYTES, size - 8):
            raise Faulted(FailureKind.INVALID, "model.safetensors: not a safetensors file (header length)")
        header = file.read(length)
    try:
        names = json.loads(header)
        if not isinstance(names, dict) or not 1 <= len(names) <= TENSORS:
            raise Faulted(FailureKind.INVALID, "model.safetensors: header names no tensors, or too many")
        names.pop("__metadata__", None)
        tensors = [TENSOR.validate_python(value) for value in names.values()]
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, of pydantic
        kind = "fields" if isinstance(error, ValidationError) else "JSON"
        raise Faulted(FailureKind.INVALID, f"model.safetensors: not a safetensors file (header {kind})") from None
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.data_offsets):
        begin, stop = tensor.data_offsets
        if begin != end or (stop - begin) * 8 != prod(tensor.shape) * BITS[tensor.dtype]:
            raise Faulted(FailureKind.INVALID, "model.safetensors: tensors overlap, leave gaps or have a wrong size")
        end = stop
    if end != size - 8 - length:
        raise Faulted(FailureKind.INVALID, "model.safetensors: the file is not as long as its tensors")
    return sum(prod(tensor.shape) for tensor in tensors)
