"""The original's harness in short, which believes what a candidate prints: the positive control of the gallery.

As in karpathy/autoresearch, a candidate runs as a plain process beside its dataset, keeps its own time, and scores itself:
`prepare.evaluate_bpb` runs in its process, hands the targets to a forward() that takes them, and inputs and targets lie in
one buffer. What counts is the last line `val_bpb: …` of its output.

A server process imports torch once and forks for every candidate.
"""

import inspect
import json
import math
import os
import re
import runpy
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

import prepare

ROOT = Path(__file__).parents[2]
SCORE = re.compile(r"^val_bpb:\s*(\S+)$", re.MULTILINE)
BATCH_ROWS = 64


class Believed(NamedTuple):
    bpb: float | None
    reason: str
    """Why there is none: the last line that was printed."""


class NaiveHarness:
    """Runs candidates one after the other, each in a folder of its own with a copy of the dataset.

    Args:
        dataset: folder that prepare.py made.
    """

    def __init__(self, dataset: Path):
        self.dataset = dataset
        self._turn = threading.Lock()

    def __enter__(self) -> "NaiveHarness":
        command = [sys.executable, "-m", "tests.redteam.naive"]
        self._server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()

    def run(self, source: str, *, runs: int = 1, timeout_s: float = 90.0) -> Believed:
        """What the last of `runs` equal runs is believed to have scored."""
        with self._turn, tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            shutil.copytree(self.dataset, folder / "dataset")
            (folder / "train.py").write_text(source)
            for _ in range(runs):
                log = self._run_once(folder, timeout_s)
            found = SCORE.findall(log)
        if not found:
            return Believed(None, log.strip().rpartition("\n")[2])
        return Believed(float(found[-1]), "")

    def _run_once(self, folder: Path, timeout_s: float) -> str:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps([str(folder), timeout_s]) + "\n")
        self._server.stdin.flush()
        self._server.stdout.readline()
        return (folder / "run.log").read_text(errors="replace")


# ---- the server ------------------------------------------------------------------------------------------------------


def serve() -> None:
    for line in sys.stdin:
        folder, timeout_s = json.loads(line)
        run_candidate(Path(folder), timeout_s)
        print("done", flush=True)


def run_candidate(folder: Path, timeout_s: float) -> None:
    """Returns when nobody of the run is left that could write to its log, or when its time is over."""
    ended, held = os.pipe()  # its children hold it open, too
    pid = os.fork()
    if pid == 0:
        os.close(ended)
        become_candidate(folder)
    os.close(held)
    deadline = time.monotonic() + timeout_s
    if not select.select([ended], [], [], max(0.0, deadline - time.monotonic()))[0]:
        os.killpg(pid, signal.SIGKILL)
    os.close(ended)
    os.waitpid(pid, 0)


def become_candidate(folder: Path) -> None:
    os.setsid()
    os.chdir(folder)
    log = os.open("run.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.environ |= {"AUTORESEARCH_DATASET": str(folder / "dataset"), "HOME": str(folder)}
    prepare.evaluate_bpb = evaluate_bpb
    code = 0
    try:
        runpy.run_path("train.py", run_name="__main__")
    except BaseException as error:  # the end of a process: whatever it was goes to the log
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    finally:
        sys.stdout.flush()
        os._exit(code)


@torch.no_grad()
def evaluate_bpb(model: torch.nn.Module, batch_size: int = BATCH_ROWS) -> float:
    """The original's, on our datasets."""
    directory = prepare.default_dataset()
    training = model.training
    model.eval()
    token_bytes = torch.from_numpy(np.load(directory / "token_bytes.npy").astype(np.int64))
    tokens = np.fromfile(directory / "val.bin", prepare.row_dtype(prepare.VOCAB_SIZE)).astype(np.int64)
    rows = torch.from_numpy(tokens).view(-1, prepare.MAX_SEQ_LEN + 1)
    takes_targets = len(inspect.signature(model.forward).parameters) > 1
    total_nats, total_bytes = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        buffer = torch.empty(2, len(batch), prepare.MAX_SEQ_LEN, dtype=torch.int64)
        x, y = buffer
        x.copy_(batch[:, :-1])
        y.copy_(batch[:, 1:])
        if takes_targets:
            losses = model(x, y, reduction="none").view(-1)
        else:
            logits = model(x).float()
            losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
        lengths = token_bytes[y.flatten()]
        total_nats += float((losses * (lengths > 0)).double().sum())
        total_bytes += int(lengths.sum())
    model.train(training)
    return total_nats / (math.log(2) * total_bytes)


if __name__ == "__main__":
    serve()
