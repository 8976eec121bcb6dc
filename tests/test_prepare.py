"""What a dataset directory holds, when prepare.py refuses to make one, and what train.py may rely on in it."""

import base64
import hashlib
import io
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import tiktoken
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import prepare
from data import corpora, download
from data.profiles import PROFILES
from data.splits import SPLITS
from tests.data.hub import Hub, running_hub
from tests.data.test_download import HASTY
from tests.ground import ROOT, configure, copy_scripts, load, python, story, write_stories

SEQ_LEN, VOCAB_SIZE = 32, 300
BOS_ID = VOCAB_SIZE - 1
KNOBS: dict[str, Any] = {  # none as in a profile
    "max_seq_len": SEQ_LEN,
    "vocab_size": VOCAB_SIZE,
    "eval_tokens": 4096,
    "time_budget_s": 3.5,
    "depth": 3,
    "aspect_ratio": 16,
    "head_dim": 8,
    "window_pattern": "SL",
    "device_batch_size": 4,
    "total_batch_tokens": 512,
}
LONG = 90  # lines of a story that is too long for an evaluation, and so goes to train
FLAGS = [text for name, value in KNOBS.items() for text in ("--" + name.replace("_", "-"), str(value))]
law = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


class Dataset(NamedTuple):
    """A dataset directory, read without any code of prepare.py."""

    texts: Path
    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "manifest.json").read_text()))

    def rows(self, split: str) -> NDArray[np.uint16]:
        return np.fromfile(self.folder / f"{split}.bin", "<u2").reshape(-1, SEQ_LEN + 1)

    @property
    def tokens(self) -> list[bytes]:
        fields = json.loads((self.folder / "tokenizer.json").read_text())
        return [base64.b64decode(token) for token in fields["mergeable_ranks"]]

    @property
    def token_bytes(self) -> NDArray[np.int32]:
        return np.asarray(np.load(self.folder / "token_bytes.npy"))

    def encoding(self) -> Any:
        fields = json.loads((self.folder / "tokenizer.json").read_text())
        ranks = {token: rank for rank, token in enumerate(self.tokens)}
        special = fields["special_tokens"]
        return tiktoken.Encoding("set", pat_str=fields["pattern"], mergeable_ranks=ranks, special_tokens=special)

    def pieces(self, split: str) -> list[bytes]:
        """Text of what stands between two BOS, or between a BOS and the end of its row."""
        tokens = [*self.tokens, *[b"?"] * (BOS_ID - len(self.tokens)), b"\0"]
        rows = (b"".join(tokens[i] for i in row) for row in self.rows(split).tolist())
        return [piece for row in rows for piece in row.split(b"\0")[1:]]

    def markers(self, split: str) -> set[bytes]:
        return {marker for piece in self.pieces(split) for marker in re.findall(rb"#(\w+)#", piece)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data")
    texts = write_stories(folder / "texts")
    made = python(
        ROOT / "prepare.py", "--corpus", "local", texts, *FLAGS, "--out", "set", cwd=folder, PYTHONHASHSEED="1"
    )
    assert made.returncode == 0, made.stderr
    return Dataset(texts, folder / "set")


@pytest.fixture
def copy(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A dataset to damage, in the current directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "set"
    shutil.copytree(dataset.folder, folder, copy_function=shutil.copyfile)
    return Dataset(dataset.texts, folder)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and the one line of prepare.py that failed: nothing else is said, but what it was doing meanwhile."""
    code = prepare.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    *doing, last = said.err.splitlines()
    assert said.out == "" and last.startswith("prepare: ")
    assert all(line.endswith(" ...") for line in doing)
    return code, last


# ---- building --------------------------------------------------------------------------------------------------------


def test_the_same_text_and_knobs_make_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "again"
    command = (ROOT / "prepare.py", "--corpus", "local", dataset.texts, *FLAGS, "--out", out)
    made = python(*command, cwd=tmp_path, PYTHONHASHSEED="2")
    assert made.returncode == 0 and made.stdout.startswith(f"built {out}\n")
    names = sorted(path.name for path in dataset.folder.iterdir())
    assert sorted(path.name for path in out.iterdir()) == names and len(names) == 6
    assert [(out / name).read_bytes() for name in names] == [(dataset.folder / name).read_bytes() for name in names]


def test_another_text_makes_other_bytes(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dataset.texts, "texts")
    Path("texts/0-000.txt").write_text(story("another"), "utf-8")
    assert prepare.main(["--corpus", "local", "texts", *FLAGS, "--out", "other"]) == 0
    other = Dataset(tmp_path / "texts", tmp_path / "other")
    assert other.manifest["corpus_sha256"] != dataset.manifest["corpus_sha256"]
    assert other.manifest["files"]["train.bin"] != dataset.manifest["files"]["train.bin"]


def test_a_second_run_only_verifies(copy: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.folder.iterdir()}
    assert prepare.main(["--corpus", "local", str(copy.texts), *FLAGS, "--out", str(copy.folder)]) == 0
    assert capsys.readouterr().out.startswith(f"verified {copy.folder}\n")
    assert {path: path.stat().st_mtime_ns for path in copy.folder.iterdir()} == before
    assert Path(".autoresearch/datasets/default").read_text() == f"{copy.folder}\n"


@pytest.mark.parametrize("name", ["train.bin", "val.bin", "test.bin", "tokenizer.json", "token_bytes.npy"])
def test_one_flipped_bit_is_found(copy: Dataset, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((copy.folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy.folder / name).write_bytes(data)
    code, line = complaint(capsys, "--corpus", "local", copy.texts, *FLAGS, "--out", copy.folder)
    assert code == 2 and f"{name}: is corrupt" in line and "--force" in line


def test_force_rebuilds_what_is_damaged(copy: Dataset, dataset: Dataset) -> None:
    (copy.folder / "val.bin").unlink()
    assert prepare.main(["--corpus", "local", str(copy.texts), *FLAGS, "--out", str(copy.folder), "--force"]) == 0
    assert copy.manifest == dataset.manifest
    assert (copy.folder / "val.bin").read_bytes() == (dataset.folder / "val.bin").read_bytes()
    assert sorted(path.name for path in copy.folder.parent.iterdir()) == [".autoresearch", "set", "set.lock"]


def test_other_knobs_do_not_replace_a_dataset_unasked(copy: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("--corpus", "local", copy.texts, *FLAGS, "--depth", 4, "--out", copy.folder)
    assert complaint(capsys, *command)[0] == 2
    assert copy.manifest["knobs"]["depth"] == 3


def test_the_manifest_has_every_knob_and_the_hash_of_every_file(dataset: Dataset) -> None:
    manifest = dataset.manifest
    assert manifest["knobs"] == KNOBS
    assert not any(KNOBS.items() & profile.items() for profile in PROFILES.values())
    others = {path.name: path.read_bytes() for path in dataset.folder.iterdir() if path.name != "manifest.json"}
    hashes = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in others.items()}
    assert manifest["files"] == hashes
    assert manifest["rows"] == {split: len(dataset.rows(split)) for split in ("train", "val", "test")}


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Of files of every kind; some are broken, or none of ours."""
    folder = tmp_path_factory.mktemp("mixed")
    texts = Path(shutil.copytree(dataset.texts, folder / "texts"))
    (texts / "below").mkdir()
    for suffix in ("txt", "md", "rst", "py", "html"):
        (texts / "below" / f"one.{suffix}").write_text(story(suffix, lines=LONG), "utf-8")
    records = [{"text": story("jsonl", lines=LONG), "id": 1}, {"text": " \n", "id": 2}]
    (texts / "one.jsonl").write_text("\n\n".join(map(json.dumps, records)))
    table = arrow.table({"id": [1, 2], "text": [story("parquet", lines=LONG), None]})
    parquet.write_table(table, texts / "one.parquet")
    (texts / "latin.txt").write_bytes(story("latin", lines=LONG).encode("utf-8") + "é".encode("latin-1"))
    (texts / "field.jsonl").write_text(json.dumps({"content": story("field", lines=LONG)}))
    (texts / "deep.jsonl").write_text("[" * 100_000)
    (texts / "cut.parquet").write_bytes((texts / "one.parquet").read_bytes()[:-9])
    made = python(ROOT / "prepare.py", "--corpus", "local", texts, *FLAGS, "--out", "set", cwd=folder)
    assert made.returncode == 0, made.stderr
    return Dataset(texts, folder / "set")


@pytest.mark.parametrize("suffix", ["txt", "md", "rst", "py", "jsonl", "parquet"])
def test_every_kind_of_file_is_read(mixed: Dataset, suffix: str) -> None:
    assert suffix.encode() in mixed.markers("train")


@pytest.mark.parametrize("marker", [b"html", b"latin", b"field"])
def test_a_file_of_another_kind_or_that_does_not_decode_is_left_out(mixed: Dataset, marker: bytes) -> None:
    assert not any(marker in mixed.markers(split) for split in SPLITS)


def test_what_is_left_out_is_counted(mixed: Dataset) -> None:
    skipped = mixed.manifest["skipped"]
    assert (skipped["undecodable"], skipped["empty"]) == (4, 2)


# ---- published corpora -----------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Has shards like those of climbmix and a file like that of tinystories; the current directory is empty."""
    monkeypatch.chdir(tmp_path)
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for number in (0, 1, 2, 6541, 6542):
            hub.put(f"shard_{number:05}.parquet", parquet_file([f"{number}x{i}" for i in range(150)]))
        hub.put("tinystories_gpt4_clean.parquet", parquet_file([f"{i}" for i in range(450)]))
        yield hub


def parquet_file(markers: list[str]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(arrow.table({"text": [story(marker) for marker in markers]}), buffer)
    return buffer.getvalue()


def test_shards_are_downloaded_once_and_the_last_two_are_held_out(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(corpora, "CLIMBMIX_SHA256", {})
    command = ["--corpus", "climbmix", "--shards", "2", *FLAGS]
    assert prepare.main(command) == 0
    made = Dataset(Path(), Path(".autoresearch/datasets/climbmix-cpu"))
    shards = {split: {marker.partition(b"x")[0] for marker in made.markers(split)} for split in SPLITS}
    assert shards == {"train": {b"0", b"1"}, "val": {b"6542"}, "test": {b"6541"}}
    assert not hub.gets("shard_00002.parquet")
    before, asked = made.manifest, len(hub.asked)
    assert prepare.main(command) == 0 and capsys.readouterr().out.count("verified") == 1
    assert made.manifest == before and len(hub.asked) == asked


def test_a_shard_that_is_not_the_pinned_one_is_refused(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = complaint(capsys, "--corpus", "climbmix", "--shards", 1, *FLAGS)
    assert code == 2 and re.search("not the pinned (054ddbd98abf30d7|769fe59d108dfd2c)", line)
    assert not Path(".autoresearch/datasets/climbmix-cpu").exists()


def test_the_first_stories_are_held_out(hub: Hub) -> None:
    assert prepare.main(["--corpus", "tinystories", *FLAGS]) == 0
    made = Dataset(Path(), Path(".autoresearch/datasets/tinystories-cpu"))
    train, val, test = ({int(marker) for marker in made.markers(split)} for split in SPLITS)
    assert max(test) < min(val) and max(val) < min(train)


def test_offline_a_download_is_something_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(download, "Patience", lambda: HASTY)
    code, line = complaint(capsys, "--corpus", "tinystories", *FLAGS)
    assert code == 3 and "cannot be reached" in line and "--corpus python" in line


# ---- refusing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["empty"], "the corpus is empty"),
        (["small"], "corpus too small: train needs"),
        (["missing"], "missing: no such file or folder"),
        (["small/page.html"], "unknown kind of file"),
        (["small/numbers.parquet"], "has no column `text`"),
        ([], "needs at least one PATH"),
        (["small", "--shards", "2"], "--shards is for --corpus climbmix"),
        (["--corpus", "python", "small"], "paths belong to --corpus local"),
        (["--corpus", "climbmix", "--shards", "0"], "--shards must be from 1 to 6541"),
        (["small", "--vocab-size", "257"], "--vocab-size must be at least 258"),
        (["small", "--eval-tokens", "0"], "--eval-tokens must be above 0"),
        (["small", "--time-budget-s", "nan"], "--time-budget-s must be above 0"),
        (["small", "--window-pattern", "SXL"], "--window-pattern is made of S"),
        (["small", "--out", "small/page.html/set"], "File exists"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "small"):
        Path(name).mkdir()
    Path("empty/blank.txt").write_text("\n")
    Path("small/one.txt").write_text(story("one"))
    Path("small/page.html").write_text(story("page"))
    parquet.write_table(arrow.table({"number": [1]}), "small/numbers.parquet")
    if arguments == ["small"]:
        Path("small/numbers.parquet").unlink()
    code, line = complaint(capsys, "--corpus", "local", *arguments)
    assert says in line
    assert code == (4 if "--out" in arguments else 2)
    assert not Path(".autoresearch/datasets/default").exists()


@pytest.mark.parametrize("flags", [["--profile", "tpu"], ["--corpus", "web"], ["--depth", "two"], ["--colour", "red"]])
def test_unknown_options_and_values_are_named(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        prepare.main(flags)
    assert stopped.value.code == 2
    assert flags[0] in capsys.readouterr().err.splitlines()[-1]


def test_a_full_disk_is_the_machines_fault_and_leaves_nothing(
    dataset: Dataset, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny_disk)
    code, line = complaint(capsys, "--corpus", "local", dataset.texts, *FLAGS, "--out", "set")
    assert code == 4 and "no space: needs" in line
    assert [path.name for path in tiny_disk.iterdir()] == ["set.lock"]


def test_a_failed_write_leaves_no_dataset_and_does_not_stop_the_next_run(dataset: Dataset, tmp_path: Path) -> None:
    limited = "import resource, sys, prepare; resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, -1)); "
    command = ("--corpus", "local", dataset.texts, *FLAGS, "--out", "set")
    failed = python("-c", limited + "sys.exit(prepare.main())", *command, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert failed.returncode == 4
    assert failed.stderr.splitlines()[-1] == f"prepare: {tmp_path / 'set'}: File too large"
    assert "Traceback" not in failed.stderr and not (tmp_path / "set").exists()
    assert python(ROOT / "prepare.py", *command, cwd=tmp_path).returncode == 0
    assert Dataset(dataset.texts, tmp_path / "set").manifest == dataset.manifest


# ---- splits ----------------------------------------------------------------------------------------------------------


def test_no_story_is_told_in_two_splits(dataset: Dataset) -> None:
    train, val, test = (dataset.markers(split) for split in SPLITS)
    assert train and val and test
    assert not (train & val or train & test or val & test)
    documents, left_out = dataset.manifest["documents"], dataset.manifest["skipped"]["near_duplicate"]
    assert sum(documents.values()) + left_out == len(list(dataset.texts.iterdir()))
    assert 0 < left_out <= 2 * (documents["val"] + documents["test"]), "two variants of each story that is held out"


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_rows_begin_with_bos_and_are_full_of_tokens_of_the_text(dataset: Dataset, split: str) -> None:
    rows = dataset.rows(split)
    assert (rows[:, 0] == BOS_ID).all()
    assert ((rows < len(dataset.tokens)) | (rows == BOS_ID)).all()
    text = b"\0".join(path.read_bytes() for path in dataset.texts.iterdir())
    pieces = dataset.pieces(split)
    assert any(pieces) and all(piece in text for piece in pieces)


def test_almost_all_of_the_training_text_is_in_its_rows(dataset: Dataset) -> None:
    assert sum(map(len, dataset.pieces("train"))) > 0.95 * dataset.manifest["bytes"]["train"]
    kept = math.ceil(KNOBS["eval_tokens"] / SEQ_LEN)
    assert len(dataset.rows("val")) == len(dataset.rows("test")) == kept


# ---- bytes -----------------------------------------------------------------------------------------------------------


def test_the_byte_table_counts_the_bytes_of_the_token_itself(dataset: Dataset) -> None:
    encoding, table = dataset.encoding(), dataset.token_bytes
    assert table.shape == (VOCAB_SIZE,) and table[BOS_ID] == 0
    own = [len(encoding.decode_single_token_bytes(i)) for i in range(len(dataset.tokens))]
    assert table[: len(own)].tolist() == own
    assert not table[len(own) :].any()


@law
@given(st.text() | st.lists(st.sampled_from(["🙂", "山", "é", "ok", "<|bos|>", "\n"])).map("".join))
def test_the_tokens_of_any_text_have_as_many_bytes_as_the_text(dataset: Dataset, text: str) -> None:
    ids = dataset.encoding().encode_ordinary(text)
    assert BOS_ID not in ids
    assert int(dataset.token_bytes[ids].sum()) == len(text.encode("utf-8"))


def test_the_bytes_of_a_rows_targets_are_those_of_its_text(dataset: Dataset) -> None:
    encoding, table, inflated = dataset.encoding(), dataset.token_bytes, 0
    for row in dataset.rows("val"):
        targets = [int(i) for i in row[1:] if i != BOS_ID]
        size = len(encoding.decode_bytes(targets))
        assert int(table[row[1:]].sum()) == size
        inflated += sum(len(encoding.decode([i]).encode()) for i in targets) - size
    assert inflated > 0, "counting decoded text would have been noticed"


# ---- the metric ------------------------------------------------------------------------------------------------------


class Bigram(torch.nn.Module):
    """Logits that depend on the token before."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        super().__init__()
        self.weights = torch.from_numpy(weights).float()

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return self.weights[idx]


@pytest.fixture
def module(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """prepare.py as train.py imports it, freshly."""
    monkeypatch.setenv("AUTORESEARCH_DATASET", str(dataset.folder))
    monkeypatch.delenv("AUTORESEARCH_GATE", raising=False)
    return load(configure(copy_scripts(tmp_path), KNOBS), "prepare")


def counted(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Tokens before and at every target of val that stands for bytes, and these bytes."""
    rows = dataset.rows("val").astype(np.int64)
    before, after = rows[:, :-1].ravel(), rows[:, 1:].ravel()
    text = after != BOS_ID
    return before[text], after[text], sum(map(len, dataset.pieces("val")))


def test_a_uniform_model_scores_the_logarithm_of_the_vocabulary(module: Any, dataset: Dataset) -> None:
    _, after, size = counted(dataset)
    score = module.evaluate_bpb(Bigram(np.zeros((VOCAB_SIZE, VOCAB_SIZE))))
    assert score == pytest.approx(math.log2(VOCAB_SIZE) * len(after) / size, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 8, 1000])
def test_a_bigram_model_scores_as_in_float64(module: Any, dataset: Dataset, batch_size: int) -> None:
    before, after, size = counted(dataset)
    weights = np.random.default_rng(batch_size).normal(size=(VOCAB_SIZE, VOCAB_SIZE))
    bits = np.log2(np.exp(weights).sum(1))[before] - weights[before, after] / math.log(2)
    model = Bigram(weights)
    assert module.evaluate_bpb(model, batch_size) == pytest.approx(bits.sum() / size, abs=1e-5)
    assert model.training


def test_unigram_bpb_is_the_entropy_of_the_bytes(dataset: Dataset) -> None:
    text = np.frombuffer(b"".join(dataset.pieces("val")), np.uint8)
    shares = np.bincount(text)[np.unique(text)] / len(text)
    assert prepare.unigram_bpb(dataset.rows("val"), dataset.tokens) == pytest.approx(-(shares * np.log2(shares)).sum())


# ---- the loader ------------------------------------------------------------------------------------------------------


def test_there_is_no_data_before_the_clock(module: Any) -> None:
    with pytest.raises(RuntimeError, match="start_clock"):
        module.make_dataloader(4)
    clock = module.start_clock()
    assert clock.budget_s == 60.0 and 0 <= clock.progress < 1
    with pytest.raises(RuntimeError, match="twice"):
        module.start_clock()


def test_batches_are_rows_and_targets_are_the_next_inputs(module: Any, dataset: Dataset) -> None:
    module.start_clock()
    inputs, targets = next(module.make_dataloader(4))
    assert inputs.shape == targets.shape == (4, SEQ_LEN) and inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    rows = {tuple(row) for row in dataset.rows("train").tolist()}
    assert all((*row, last) in rows for row, last in zip(inputs.tolist(), targets[:, -1].tolist(), strict=True))


@law
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32))
def test_every_epoch_visits_every_row_once_in_an_order_of_its_own(count: int, batch_size: int, seed: int) -> None:
    rows = np.arange(2 * count).reshape(count, 2)
    batches, again = (prepare.Batches(rows, batch_size, seed, "cpu") for _ in range(2))
    order: list[int] = []
    while len(order) < 3 * count:
        inputs, targets = next(batches)
        assert torch.equal(targets, inputs + 1) and torch.equal(next(again)[0], inputs)
        order += (inputs[:, 0] // 2).tolist()
    epochs = [order[start : start + count] for start in (0, count, 2 * count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert count < 10 or epochs[0] != epochs[1] != epochs[2]


def test_another_seed_gives_another_order() -> None:
    rows = np.arange(200).reshape(100, 2)
    one, other = (next(prepare.Batches(rows, 100, seed, "cpu"))[0] for seed in (1, 2))
    assert not torch.equal(one, other) and torch.equal(one.sort(0).values, other.sort(0).values)


@pytest.mark.gpu
def test_batches_on_a_gpu_are_those_on_a_cpu() -> None:
    rows = np.arange(1000, dtype=np.uint16).reshape(100, 10)
    there, here = (prepare.Batches(rows, 7, 3, device) for device in ("cuda", "cpu"))
    sent = [next(there) for _ in range(40)]  # more than there are buffers, and none is waited for
    for (inputs, targets), expected in zip(sent, here, strict=False):
        assert inputs.is_cuda and torch.equal(inputs.cpu(), expected[0]) and torch.equal(targets.cpu(), expected[1])


# ---- the gate --------------------------------------------------------------------------------------------------------

CANDIDATE = """
import torch, prepare
prepare.start_clock()
inputs, _ = next(prepare.make_dataloader(2))
prepare.report(1, inputs.numel(), 2.5)
prepare._run.last_report -= 1  # a second ago
prepare.report(2, inputs.numel(), float("nan"))
model = torch.nn.Linear(2, 2)
with torch.no_grad():
    model.weight.fill_(inputs[0, 1].item())
prepare.submit(model)
"""


def test_the_gate_brings_the_data_and_takes_the_weights(dataset: Dataset, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    for name in ("lab", "gate", "data", "out"):
        (tmp_path / name).mkdir()
    lab = configure(copy_scripts(tmp_path / "lab"), KNOBS)
    address = tmp_path / "gate" / "gate.sock"
    variables = {**os.environ, "AUTORESEARCH_GATE": str(address)}
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        server.listen()
        server.settimeout(60)
        command = [sys.executable, "-c", CANDIDATE]
        with subprocess.Popen(command, cwd=lab, env=variables, stdout=-1, stderr=-1) as candidate:
            connection, _ = server.accept()
            with connection, connection.makefile("rw") as lines:
                assert json.loads(lines.readline()) == {"type": "ready"}
                shutil.copy(dataset.folder / "train.bin", tmp_path / "data")
                lines.write('{"type": "go", "budget_s": 7.0, "data_seed": 11}\n')
                lines.flush()
                said = [json.loads(lines.readline()) for _ in range(4)]
                weights = load_file(tmp_path / "out" / "model.safetensors")
                lines.write('{"type": "ack"}\n')
                lines.flush()
            output = candidate.communicate(timeout=60)
    assert said == [
        {"type": "progress", "step": 1, "tokens": 2 * SEQ_LEN, "loss": 2.5},
        {"type": "progress", "step": 2, "tokens": 2 * SEQ_LEN, "loss": None},
        {"type": "submit", "step": 2, "tokens": 2 * SEQ_LEN},
        {"type": "done"},
    ]
    first, _ = next(prepare.Batches(dataset.rows("train"), 2, 11, "cpu"))
    assert (weights["weight"] == first[0, 1].item()).all()
    assert (candidate.returncode, *output) == (0, b"", b"")
