"""A lab for tests: a git clone of this repository's working copy with a small dataset, so that campaigns take seconds."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

ORG = """
name = "tiny"
seed = 3
[data]
dataset = ".autoresearch/datasets/local-cpu"
[budget]
train_s = 1.5
experiments = {experiments}
[audit]
lie_bpb = 0.1
[sandbox]
engine = "{engine}"
device = "cpu"
stolen_cpu = 1.0  # tests run on busy machines
[merge]
rule = "keep-if-lower"
[headline]
runs = 0
"""


BRIEF = """[audit]
lie_bpb = 0.1
[sandbox]
engine = "runc"
device = "cpu"
stolen_cpu = 1.0
[merge]
rule = "keep-if-lower"
[headline]
runs = 0
[upkeep]
combine = false
leave_one_out = false
"""
"""The rest of an org file whose campaign is to be over soon, on a busy machine."""


def make_lab(root: Path, *, engine: str = "runc", experiments: int = 2) -> Path:
    """Copy what a lab needs, commit it, and prepare a dataset of a few hundred rows."""
    for name in ("train.py", "prepare.py", "program.md"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "roles", root / "roles")
    (root / "orgs").mkdir()
    (root / "orgs" / "tiny.toml").write_text(ORG.format(engine=engine, experiments=experiments))
    (root / ".gitignore").write_text(".autoresearch/\n")
    shutil.copytree(Path(prepared().name, "corpus"), root / "corpus")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run([*git, *arguments], cwd=root, check=True)
    shutil.copytree(Path(prepared().name, ".autoresearch"), root / ".autoresearch")
    return root


@cache
def prepared() -> "tempfile.TemporaryDirectory[str]":
    """A folder with the corpus and the dataset of every lab of this process; it goes when the process does."""
    folder = tempfile.TemporaryDirectory(prefix="prepared-")
    corpus = Path(folder.name, "corpus")
    corpus.mkdir()
    for source in sorted((ROOT / "orgs").glob("*.py")) + sorted(Path(os.__file__).parent.glob("[a-d]*.py")):
        shutil.copy(source, corpus / source.name)
    knobs = ["--max-seq-len", "64", "--vocab-size", "300", "--eval-tokens", "32768"]
    knobs += ["--device-batch-size", "4", "--total-batch-tokens", "256"]
    prepare = [sys.executable, str(ROOT / "prepare.py"), "--corpus", "local", "corpus", "--profile", "cpu", *knobs]
    made = subprocess.run(prepare, cwd=folder.name, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "orgs.cli", *arguments]


def run(lab: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a lab, with additional environment variables."""
    return subprocess.run(
        command(*arguments),
        cwd=lab,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=600,  # for what hangs: busy machines take several times as long as others
        check=False,
    )


def start(lab: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start the command line in a lab, in a process group of its own, its output in `launch.log`."""
    log, env = (lab / "launch.log").open("a"), environment() | variables
    return subprocess.Popen(
        command(*arguments), cwd=lab, env=env, stdout=log, stderr=log, text=True, start_new_session=True
    )


def play(lab: Path, org: str, **variables: str) -> str:
    """Launch an org until it ends by itself; everything that it printed. A busy machine takes its time, and one that hangs leaves
    nothing behind."""
    process = start(lab, "launch", org, **variables)
    try:
        code = process.wait(timeout=800)
    finally:
        if process.poll() is None:
            kill_group(process)
    said = (lab / "launch.log").read_text()
    assert code == 0, said
    return said


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.2)


def kill_group(process: subprocess.Popen[Any]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
