"""Data, tokenizer, dataloader, clock and metric: fixed, and never edited by the org.

By hand it makes a dataset, once (how is in data/):

    python prepare.py --corpus python --profile cpu
    python prepare.py --corpus climbmix --profile h100
    python prepare.py --corpus local ~/texts notes.md --profile h100 --eval-tokens 4194304

The rest is what train.py imports. By hand it works on the dataset made last; in the sandbox, which ships this file alone, there is no
data until the host has started the clock, and the score is computed elsewhere.
"""

import argparse
import base64
import json
import math
import os
import socket
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Rows = NDArray[Any]
"""Tokens, [rows, max_seq_len + 1], uint16 or uint32: inputs are [:, :-1], targets are [:, 1:]."""

# ----------------------------------------------------------------------------------------------------------------------
# Command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Build or verify a dataset. Returns the exit code: 0, 2 (bad input), 3 (no network) or 4 (the machine)."""
    from data.files import locked
    from records import HostFault, Refusal

    options = _parser().parse_args(arguments)
    state = Path.cwd() / ".autoresearch"
    directory = (options.out or state / "datasets" / f"{options.corpus}-{options.profile}").absolute()
    try:
        knobs = _knobs(options)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with locked(directory.with_name(directory.name + ".lock")):
            verb, manifest = _make(options, knobs, directory, state / "corpora")
        _point_to(directory, state / "datasets" / "default")
    except Refusal as error:
        print(f"prepare: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"prepare: {directory}: {error.strerror or error}", file=sys.stderr)
        return HostFault.exit_code
    rows, skipped = manifest["rows"], manifest["skipped"]
    print(f"{verb} {directory}")
    print(f"rows of {knobs['max_seq_len']} tokens: " + ", ".join(f"{split} {count:,}" for split, count in rows.items()))
    print(
        f"left out: {skipped['undecodable']} undecodable files, {skipped['empty']} empty documents, "
        f"{skipped['near_duplicate']} near-duplicates of what is held out"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    from data.corpora import CORPORA
    from data.documents import SUFFIXES
    from data.profiles import PROFILES, SHARDS

    parser = argparse.ArgumentParser(
        description="Make the dataset that train.py trains on and the sandbox scores with.",
        epilog="climbmix and tinystories are downloaded; HF_ENDPOINT names a mirror.",
    )
    parser.add_argument("--corpus", choices=CORPORA, default="python", help="default: %(default)s")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="of local: folders, " + " ".join(SUFFIXES))
    parser.add_argument("--profile", choices=tuple(PROFILES), default="cpu", help="default: %(default)s")
    shards = ", ".join(f"{count} for {profile}" for profile, count in SHARDS.items())
    parser.add_argument("--shards", type=int, help=f"of climbmix, for training: {shards}")
    parser.add_argument("--out", type=Path, help="default: .autoresearch/datasets/CORPUS-PROFILE")
    parser.add_argument("--force", action="store_true", help="rebuild what is there")
    knobs = parser.add_argument_group("knobs", "each overrides the profile")
    for name, value in PROFILES["cpu"].items():
        knobs.add_argument("--" + name.replace("_", "-"), type=type(value), metavar=type(value).__name__.upper())
    return parser


def _knobs(options: argparse.Namespace) -> dict[str, Any]:
    """Those of the profile, where no flag overrides them."""
    from data.profiles import PROFILES
    from records import BadInput

    given = {name: getattr(options, name) for name in PROFILES[options.profile]}
    knobs = PROFILES[options.profile] | {name: value for name, value in given.items() if value is not None}
    for name, value in knobs.items():
        if isinstance(value, (int, float)) and not 0 < value < math.inf:
            raise BadInput(f"--{name.replace('_', '-')} must be above 0, not {value}")
    if int(knobs["vocab_size"]) < 258:
        raise BadInput("--vocab-size must be at least 258: every byte, one merge and BOS")
    if set(str(knobs["window_pattern"])) - set("SL"):
        raise BadInput("--window-pattern is made of S (half the context) and L (all of it), such as SSSL")
    return knobs


def _make(
    options: argparse.Namespace, knobs: Mapping[str, Any], directory: Path, downloads: Path
) -> tuple[str, dict[str, Any]]:
    """What was done, and the manifest of what is there now."""
    from data.corpora import find_corpus
    from data.directory import build, verify
    from data.files import hash_files
    from data.profiles import SHARDS
    from records import BadInput

    if options.shards is not None and options.corpus != "climbmix":
        raise BadInput("--shards is for --corpus climbmix")
    shards = SHARDS[options.profile] if options.shards is None else options.shards
    corpus = find_corpus(options.corpus, options.paths, shards, downloads)
    if not directory.exists() or options.force:
        return "built", build(corpus, options.profile, knobs, directory)
    manifest = verify(directory)
    wanted = {"corpus_sha256": hash_files(corpus.files), "profile": options.profile, "knobs": knobs}
    for what, value in wanted.items():
        if manifest[what] != value:
            raise BadInput(f"{directory}: was made with another {what}; --force rebuilds it, --out DIR keeps both")
    return "verified", manifest


def _point_to(directory: Path, pointer: Path) -> None:
    pointer.parent.mkdir(parents=True, exist_ok=True)
    part = pointer.with_name(f"default.{os.getpid()}")
    part.write_text(f"{directory}\n")
    part.replace(pointer)


# ----------------------------------------------------------------------------------------------------------------------
# What train.py imports. In the sandbox, config.json lies beside this file; by hand, the dataset's manifest serves.

MAX_SEQ_LEN: int
VOCAB_SIZE: int
TIME_BUDGET: float
"""Seconds."""
DEVICE: str
"""`cpu` or `cuda`."""
SEED: int
PROFILE: dict[str, Any]
"""The dataset's knobs: the sizes its profile suggests."""


def __getattr__(name: str) -> Any:
    # On demand, so that importing this file needs no dataset: only asking for one of its constants does.
    if name not in ("MAX_SEQ_LEN", "VOCAB_SIZE", "TIME_BUDGET", "DEVICE", "SEED", "PROFILE"):
        raise AttributeError(f"module 'prepare' has no attribute {name!r}")
    return getattr(_settings(), name)


class _Settings(NamedTuple):
    MAX_SEQ_LEN: int
    VOCAB_SIZE: int
    TIME_BUDGET: float
    DEVICE: str
    SEED: int
    PROFILE: dict[str, Any]


@cache
def _settings() -> _Settings:
    beside = Path(__file__).with_name("config.json")
    if beside.exists():
        _unpack_kernels()
        given = json.loads(beside.read_bytes())
        names = ("max_seq_len", "vocab_size", "budget_s", "device", "seed", "profile")
        return _Settings(*(given[name] for name in names))
    try:
        directory = default_dataset()
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None
    try:
        knobs = json.loads((directory / "manifest.json").read_bytes())["knobs"]
    except (OSError, ValueError, KeyError):
        raise SystemExit(f"{directory}: no dataset with a readable manifest.json; rebuild it with --force") from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return _Settings(knobs["max_seq_len"], knobs["vocab_size"], knobs["time_budget_s"], device, 42, knobs)


def default_dataset() -> Path:
    """Where AUTORESEARCH_DATASET points to, or else the dataset that was prepared last. Raises FileNotFoundError if none was."""
    if "AUTORESEARCH_DATASET" in os.environ:
        return Path(os.environ["AUTORESEARCH_DATASET"])
    try:
        return Path(Path(".autoresearch/datasets/default").read_text().strip())
    except OSError:
        raise FileNotFoundError("no dataset: run `python prepare.py --corpus python --profile cpu`") from None


# ---- the clock, and the gate to the host that keeps it ---------------------------------------------------------------


@dataclass(frozen=True)
class Clock:
    """This process' view of the time budget. In the sandbox the host's own clock decides."""

    started: float
    """time.monotonic() at the start."""
    budget_s: float

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def progress(self) -> float:
        """Used part of the budget; 1 and more mean stop."""
        return self.elapsed_s / self.budget_s


class _Gate:
    """Newline-delimited JSON with the host over a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")

    def send(self, **message: Any) -> None:
        self._socket.sendall(json.dumps(message, allow_nan=False).encode() + b"\n")

    def receive(self, kind: str, timeout_s: float | None = None) -> dict[str, Any]:
        self._socket.settimeout(timeout_s)
        message: dict[str, Any] = json.loads(self._lines.readline(4096) or b"{}")
        if message.get("type") != kind:
            raise ConnectionError(f"the host did not answer {kind!r}")
        return message


class _Run:
    """What must be remembered between the calls that train.py makes."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.clock: Clock | None = None
        self.gate: _Gate | None = None
        self.data: Path | None = None
        self.out: Path | None = None
        self.data_seed = 0
        self.step = 0
        self.tokens = 0
        self.last_report = -math.inf


_run = _Run()


def start_clock() -> Clock:
    """Start the time budget. Call it once, after everything that needs no data: building, compiling, warming up.

    In the sandbox it blocks until the host has put the training data in place. Raises RuntimeError when called twice.
    """
    if _run.clock is not None:
        raise RuntimeError("start_clock() was called twice")
    budget_s = _settings().TIME_BUDGET
    if "AUTORESEARCH_GATE" in os.environ:
        socket_path = Path(os.environ["AUTORESEARCH_GATE"])  # /gate/gate.sock; /data and /out lie beside /gate
        _run.data, _run.out = socket_path.parents[1] / "data", socket_path.parents[1] / "out"
        if _keeps_kernels():
            _pack_kernels(_run.out)
        _run.gate = _Gate(socket_path)
        _run.gate.send(type="ready")
        go = _run.gate.receive("go")
        budget_s, _run.data_seed = float(go["budget_s"]), int(go["data_seed"])
    else:
        _run.data, _run.data_seed = default_dataset(), _settings().SEED
    _run.clock = Clock(time.monotonic(), budget_s)
    return _run.clock


def _running_clock() -> Clock:
    if _run.clock is None:
        raise RuntimeError("call start_clock() first: there is no training data before the clock runs")
    return _run.clock


# ---- what the compiler made, from one start-up to the next -----------------------------------------------------------

_KERNELS = "kernels.tar"
_COMPILERS_CACHES = (
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR",
    "QUACK_CACHE_DIR",
)


def _keeps_kernels() -> bool:
    """Whether this start-up is only for what it compiles: the host never says `go`."""
    beside = Path(__file__).with_name("config.json")
    return beside.exists() and bool(json.loads(beside.read_bytes()).get("keep_kernels"))


def _pack_kernels(out: Path) -> None:
    part = out / f"{_KERNELS}.part"
    with tarfile.open(part, "w") as archive:
        for name in _COMPILERS_CACHES:
            if Path(os.environ.get(name, "")).is_dir():
                archive.add(os.environ[name])
    part.rename(out / _KERNELS)


def _unpack_kernels() -> None:
    """Put what was compiled for the champion where the compiler looks, so that only changed graphs are compiled anew."""
    archive = Path(os.environ.get("AUTORESEARCH_GATE", "/nowhere/gate.sock")).parents[1] / "cache" / _KERNELS
    safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
    # Whatever a champion left there is no fault of this run: then it compiles by itself.
    with suppress(OSError, EOFError, tarfile.TarError), tarfile.open(archive) as kernels:
        kernels.extractall("/", **safely)


# ---- data ------------------------------------------------------------------------------------------------------------


class Batches:
    """Endless (inputs, targets), int64 [batch_size, seq_len] each on `device`, in an order given by the seed.

    Every epoch is a new permutation; a batch may span two of them. For a GPU the rows are gathered into one of two page-locked
    buffers and copied from there without waiting. So ask for a batch as soon as the work on the last one is queued: the CPU
    gathers it while the GPU computes.
    """

    def __init__(self, rows: Rows, batch_size: int, seed: int, device: str) -> None:
        self.epoch = 0
        """Passes begun over the training rows."""
        self._rows, self._batch_size, self._device = rows, batch_size, device
        self._order = self._shuffled(seed)
        shape = (batch_size, rows.shape[1])
        self._buffers = [_PinnedBuffer(shape) for _ in range(2)] if device == "cuda" else []

    def _shuffled(self, seed: int) -> Iterator[int]:
        while True:
            self.epoch += 1
            yield from np.random.default_rng((seed, self.epoch)).permutation(len(self._rows)).tolist()

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self._rows[list(islice(self._order, self._batch_size))]
        if not self._buffers:
            return to_device(rows, self._device)
        self._buffers.reverse()
        return _split(self._buffers[0].send(rows))


class _PinnedBuffer:
    """Page-locked memory that the GPU copies rows from while the CPU goes on."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._tokens = torch.empty(shape, dtype=torch.int64, pin_memory=True)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def send(self, rows: Rows) -> torch.Tensor:
        self._copied.synchronize()  # what was sent before has left
        self._tokens.numpy()[:] = rows
        tokens = self._tokens.to("cuda", non_blocking=True)
        self._copied.record()
        return tokens


def to_device(rows: Rows, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Split rows into inputs and targets, int64 [rows, seq_len] each."""
    return _split(torch.from_numpy(rows.astype(np.int64)).to(device))


def _split(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Two tensors that share no memory: who may write to the inputs must not reach the targets.
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def make_dataloader(batch_size: int) -> Batches:
    """Batches of the training rows. Raises RuntimeError before start_clock()."""
    _running_clock()
    assert _run.data is not None
    return Batches(_read_rows(_run.data / "train.bin"), batch_size, _run.data_seed, _settings().DEVICE)


def row_dtype(vocab_size: int) -> np.dtype[Any]:
    """Of tokens on disk: little-endian uint16 where the vocabulary fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def _read_rows(path: Path) -> Rows:
    settings = _settings()
    return np.memmap(path, row_dtype(settings.VOCAB_SIZE), "r").reshape(-1, settings.MAX_SEQ_LEN + 1)


# ---- the metric ------------------------------------------------------------------------------------------------------


def bits_per_byte(
    model: Callable[[torch.Tensor], torch.Tensor],
    rows: Rows,
    token_bytes: NDArray[np.int32],
    batch_size: int,
    device: str,
) -> float:
    """Σ nats / (ln 2 × Σ bytes) over the targets that stand for bytes; BOS counts in neither sum.

    `model` maps int64 [B, T] to logits [B, T, vocab_size].
    """
    table = torch.from_numpy(token_bytes.astype(np.int64)).to(device)
    nats, bytes_seen = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            inputs, targets = to_device(rows[start : start + batch_size], device)
            logits = model(inputs).float()
            lengths = table[targets]
            losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            nats += float((losses * (lengths.flatten() > 0)).double().sum())
            bytes_seen += int(lengths.sum())
    return nats / (math.log(2) * bytes_seen)


def evaluate_bpb(model: torch.nn.Module, batch_size: int = 8) -> float:
    """val_bpb of the model, by hand only: the sandbox keeps validation rows from the training process."""
    directory = default_dataset()
    training = model.training
    token_bytes = np.load(directory / "token_bytes.npy", allow_pickle=False)
    bpb = bits_per_byte(model.eval(), _read_rows(directory / "val.bin"), token_bytes, batch_size, _settings().DEVICE)
    model.train(training)
    return bpb


def unigram_bpb(rows: Rows, tokens: Sequence[bytes]) -> float:
    """Entropy of single bytes in the text of the targets: what a model that learned only byte frequencies would score."""
    counts = np.zeros(256)
    for token_id, occurrences in enumerate(np.bincount(rows[:, 1:].ravel(), minlength=len(tokens))[: len(tokens)]):
        np.add.at(counts, np.frombuffer(tokens[token_id], np.uint8), occurrences)
    frequencies = counts[counts > 0] / counts.sum()
    return float(-(frequencies * np.log2(frequencies)).sum())


# ---- telemetry and the result ----------------------------------------------------------------------------------------


def report(step: int, tokens: int, loss: float) -> None:
    """Say how far training is: steps and tokens done, and the last loss in nats. The host shows it and believes nothing;
    a loss that is not finite, or far above the champion's, may end the run (early_stop in the org file)."""
    clock = _running_clock()
    _run.step, _run.tokens = step, tokens
    if _run.gate is None:
        return
    pause_s = max(0.25, clock.budget_s / 5000)  # the host ends runs that send over 10,000 lines
    if clock.elapsed_s - _run.last_report >= pause_s:
        _run.last_report = clock.elapsed_s
        _run.gate.send(type="progress", step=step, tokens=tokens, loss=float(loss) if math.isfinite(loss) else None)


def submit(model: torch.nn.Module, *, depth: int = 0, flops_per_token: float = 0.0) -> None:
    """Hand over the trained model: in the sandbox its weights, by hand the summary of the run.

    `depth` and `flops_per_token` (of forward and backward) appear in the summary only. The weights must be complete
    within the budget plus a few seconds of grace by the host's clock.
    """
    clock = _running_clock()
    if _run.gate is None or _run.out is None:
        print(summarise(model, clock.elapsed_s, depth, flops_per_token))
        return
    _run.gate.send(type="submit", step=_run.step, tokens=_run.tokens)
    save_weights(model, _run.out / "model.safetensors")
    _run.gate.send(type="done")
    with suppress(OSError):  # late or lost, the answer changes nothing any more
        _run.gate.receive("ack", timeout_s=5.0)


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write the state dict so that `path` is either absent or complete. Names are those of the uncompiled module."""
    from safetensors.torch import save_file

    # Clones: safetensors refuses tensors that share memory, as tied weights do.
    weights = {
        name.replace("_orig_mod.", ""): w.detach().cpu().contiguous().clone() for name, w in model.state_dict().items()
    }
    part = path.with_name(path.name + ".part")
    save_file(weights, part)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(path)


def summarise(model: torch.nn.Module, training_s: float, depth: int, flops_per_token: float) -> str:
    """The run in the original's summary block, scored in this very process: good to look at, worth nothing as evidence."""
    val_bpb = evaluate_bpb(model)
    directory = default_dataset()
    tokens = json.loads((directory / "tokenizer.json").read_bytes())["mergeable_ranks"]
    on_gpu = _settings().DEVICE == "cuda"
    flops_per_s = flops_per_token * _run.tokens / training_s
    train_tokens = _read_rows(directory / "train.bin")[:, 1:].size
    lines = {
        "val_bpb": f"{val_bpb:.6f}",
        "unigram_bpb": f"{unigram_bpb(_read_rows(directory / 'val.bin'), list(map(base64.b64decode, tokens))):.6f}",
        "training_seconds": f"{training_s:.1f}",
        "total_seconds": f"{time.monotonic() - _run.begun:.1f}",
        "peak_vram_mb": f"{torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0:.1f}",
        "mfu_percent": f"{100 * flops_per_s / 989.5e12 if on_gpu else 0:.2f}",  # of an H100's dense bf16 peak
        "total_tokens_M": f"{_run.tokens / 1e6:.1f}",
        "epochs": f"{_run.tokens / train_tokens:.2f}",  # above 1, text is seen again
        "num_steps": f"{_run.step}",
        "num_params_M": f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}",
        "depth": f"{depth}",
    }
    heading = "--- self-reported; only a score measured by the sandbox counts"
    return "\n".join([heading, *(f"{name + ':':<18}{value}" for name, value in lines.items())])


if __name__ == "__main__":
    sys.exit(main())
