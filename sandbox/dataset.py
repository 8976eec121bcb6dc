"""A prepared dataset, as prepare.py wrote it: opened, verified, memory-mapped."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.files import hash_file
from records import BadInput, MissingComponent

Split = Literal["train", "val", "test"]
Rows = NDArray[np.uint16] | NDArray[np.uint32]
FILES = ("train.bin", "val.bin", "test.bin", "token_bytes.npy", "tokenizer.json")
AGAIN = "delete the folder and prepare it again"


class DataFile(BaseModel):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: int


class Knobs(BaseModel):
    """The knobs that the sandbox itself reads; the others are for train.py."""

    model_config = ConfigDict(extra="allow")

    max_seq_len: Annotated[int, Field(gt=0)]
    vocab_size: Annotated[int, Field(gt=0)]
    time_budget_s: Annotated[float, Field(gt=0)]


class Manifest(BaseModel):
    format: Literal[1]
    corpus: str
    profile: str
    knobs: Knobs
    dtype: Literal["uint16", "uint32"]
    rows: dict[Split, int]
    files: dict[str, DataFile]


@dataclass(frozen=True)
class Dataset:
    path: Path
    sha256: str
    """Of the manifest, which holds the hash of every file: the identity of all of it."""
    manifest: Manifest

    @classmethod
    def open(cls, path: Path, verify: bool = True) -> "Dataset":
        """Open the dataset in folder `path`.

        Args:
            path: folder written by prepare.py.
            verify: also compare every file with its hash; without it only sizes are compared.

        Raises:
            MissingComponent: there is no dataset.
            BadInput: the files are not those of the manifest.
        """
        path = path.resolve()
        try:
            raw = (path / "manifest.json").read_bytes()
        except OSError:
            raise MissingComponent(f"{path}: no dataset here; make one with prepare.py") from None
        try:
            manifest = Manifest.model_validate_json(raw)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"])) or "syntax"
            raise BadInput(f"{path / 'manifest.json'}: not a manifest of format 1 ({where}); {AGAIN}") from None
        dataset = cls(path, hashlib.sha256(raw).hexdigest(), manifest)
        for name in FILES:
            dataset._check(name, verify)
        return dataset

    def _check(self, name: str, verify: bool) -> None:
        file, expected = self.path / name, self.manifest.files.get(name)
        try:
            size = file.stat().st_size
            if expected is None or size != expected.bytes:
                raise BadInput(f"{file}: is not the file that the manifest describes; {AGAIN}")
            if not verify:
                return
            digest = hash_file(file)
        except OSError as error:
            raise BadInput(f"{file}: cannot be read ({error.strerror}); {AGAIN}") from None
        if digest != expected.sha256:
            raise BadInput(f"{file}: content does not match its hash in the manifest; {AGAIN}")

    @property
    def profile(self) -> Mapping[str, Any]:
        """Every knob: what train.py sees as prepare.PROFILE."""
        return self.manifest.knobs.model_dump()

    @property
    def max_seq_len(self) -> int:
        return self.manifest.knobs.max_seq_len

    @property
    def vocab_size(self) -> int:
        return self.manifest.knobs.vocab_size

    @property
    def budget_s(self) -> float:
        """Seconds of training that the dataset's profile suggests."""
        return self.manifest.knobs.time_budget_s

    @property
    def train_tokens(self) -> int:
        """That the training split holds; at least 1."""
        return max(1, self.manifest.rows["train"] * self.max_seq_len)

    @property
    def tokenizer_sha256(self) -> str:
        return self.manifest.files["tokenizer.json"].sha256

    def rows(self, split: Literal["train", "val"]) -> Rows:
        """Tokens of a split, memory-mapped, [rows, max_seq_len + 1]."""
        return self._map(split)

    def unsealed(self, tell: Callable[[str], None]) -> Rows:
        """Tokens of the test split, which nobody may look at but to report or compare, [rows, max_seq_len + 1].

        Args:
            tell: is told that the seal is broken, before it is, and makes a lasting note of it.
        """
        tell(f"test split of dataset {self.sha256[:12]} read")
        return self._map("test")

    def _map(self, split: Split) -> Rows:
        flat = np.memmap(self.path / f"{split}.bin", np.dtype(self.manifest.dtype).newbyteorder("<"), "r")
        if flat.size % (self.max_seq_len + 1):
            raise BadInput(f"{self.path / split}.bin: is not made of rows of {self.max_seq_len + 1} tokens; {AGAIN}")
        return flat.reshape(-1, self.max_seq_len + 1)

    def token_bytes(self) -> NDArray[np.int32]:
        """Bytes of each token, int32 [vocab_size]; 0 for BOS."""
        table: NDArray[np.int32] = np.load(self.path / "token_bytes.npy", allow_pickle=False)
        if table.shape != (self.vocab_size,) or table.dtype != np.int32:
            raise BadInput(f"{self.path / 'token_bytes.npy'}: is not int32 [{self.vocab_size}]; {AGAIN}")
        return table
