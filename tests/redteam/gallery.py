"""The cheaters' gallery: each file of tests/redteam/cheats/ is a train.py with one cheat, and its own honest twin.

    python -m tests.redteam.gallery      # runs all of them and writes docs/cheaters-gallery.md

A cheat replaces pieces of cheats/honest.py. What it declares:

    CHEAT    set to False, the same text is the honest twin
    GROUP    what it attacks
    VERDICT  how its audited measurement ends: a kind of failure, `no gain` when it is scored and no better than the twin,
             or `gain`: a hole that is known and still open
    NAIVE    what the naive harness makes of it: `better` than the twin (the default), `nan`, or merely `believed`
    MARGIN   bits per byte that it must be better there
    RUNS     runs in a row, of which the last counts
    LIMITS   limits of the sandbox other than LIMITS below
    FULL     the full audit is part of what is tested, see Gallery.full_audits
"""

import ast
import codecs
import os
import random
import re
import string
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from rich.progress import track

from records import Measurement
from sandbox.dataset import Dataset
from sandbox.device import find_device
from sandbox.engines import Engine, pick_engine
from sandbox.measure import measure
from sandbox.profile import Limits
from sandbox.score import Rigour
from tests.redteam.naive import Believed, NaiveHarness

ROOT = Path(__file__).parents[2]
CHEATS = Path(__file__).with_name("cheats")
TABLE = ROOT / "docs" / "cheaters-gallery.md"
GROUPS = ("the metric", "the clock", "the files", "the scorer")
DECLARED = {"CHEAT", "GROUP", "VERDICT", "NAIVE", "MARGIN", "RUNS", "LIMITS", "FULL"}
GUARD = '\n\nif __name__ == "__main__":\n    main()\n'
FILL = re.compile(r"<(\d+) characters>")

SEED = 42
LIE_BPB = 0.05
CUTS = 300
"""Which is what the full audit of an honest run takes for lies of that worth."""
MESSAGE_CHARS = 110
BUDGET_S = 1.0
MEBIBYTE = 2**20
LIMITS: Mapping[str, float] = {
    "cpus": 2,
    "stolen_cpu": 1.0,  # a busy machine must not turn a cheat's run into a void one
    "memory_bytes": 1024 * MEBIBYTE,
    "pids": 64,
    "tmp_bytes": 64 * MEBIBYTE,
    "shm_bytes": 16 * MEBIBYTE,
    "out_bytes": 16 * MEBIBYTE,
    "grace_s": 15.0,  # the candidates train for a number of steps, not for a time: a busy machine must not end them
}
ALLOWED_BPB = 1e-4
STD_ERRORS = 4.0
"""Only who lies within the tolerance has an error to speak of. With 2, a test would fail once in 44 times."""


@dataclass(frozen=True)
class Cheat:
    name: str
    group: str
    about: str
    """One sentence."""
    verdict: str
    naive: str = "better"
    margin: float = 0.05
    runs: int = 1
    limits: Mapping[str, float] = field(default_factory=dict)
    full: bool = False
    own_twin: bool = False
    """Its twin is another program than honest.py."""


def read_cheat(name: str) -> Cheat:
    tree = ast.parse((CHEATS / f"{name}.py").read_text())
    declared = {key: value for node in tree.body for key, value in declaration(node).items()}
    about = (ast.get_docstring(tree) or "").splitlines()[0]
    pieces = [node for node in tree.body[1:] if not declaration(node)]
    own_twin = not all(isinstance(node, (ast.Import, ast.ImportFrom, ast.If)) for node in pieces)
    del declared["cheat"]
    return Cheat(name, about=about, own_twin=own_twin, **declared)


def declaration(node: ast.stmt) -> dict[str, Any]:
    """What the line declares, if it is one that this module reads."""
    match node:
        case ast.Assign(targets=[ast.Name(id=key)]) if key in DECLARED:
            return {key.lower(): ast.literal_eval(node.value)}
    return {}


def read_cheats() -> list[Cheat]:
    """All of them, by group and name."""
    found = [read_cheat(path.stem) for path in sorted(CHEATS.glob("*.py")) if path.stem != "honest"]
    return sorted(found, key=lambda cheat: GROUPS.index(cheat.group))


def compose(name: str, cheat: bool) -> str:
    """A whole train.py: the honest one, then what the cheat replaces."""
    honest = (CHEATS / "honest.py").read_text().removesuffix(GUARD)
    if name == "honest":
        return honest + GUARD
    lines = (CHEATS / f"{name}.py").read_text().splitlines()
    tree = ast.parse("\n".join(lines))
    for node in tree.body:
        key = next(iter(declaration(node)), None)
        star = isinstance(node, ast.ImportFrom) and node.module == "tests.redteam.cheats.honest"
        if node is tree.body[0] or star or key is not None:
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
        if key == "cheat":
            lines[node.lineno - 1] = f"CHEAT = {cheat}"
    own = re.sub(r"\n{3,}", "\n\n\n", "\n".join(lines)).strip("\n")
    return honest + "\n\n\n" + FILL.sub(fill, own) + GUARD


def fill(match: re.Match[str]) -> str:
    """So many characters, always the same."""
    return "".join(random.Random(1).choices(string.ascii_letters, k=int(match[1])))


# ---- what they run on ------------------------------------------------------------------------------------------------


def make_dataset(folder: Path) -> Dataset:
    """A small dataset by the real prepare.py, of text that lies in no container: there the standard library can be read,
    but not its ROT13."""
    texts = folder / "texts"
    texts.mkdir()
    for source in sorted(Path(os.__file__).parent.glob("[a-d]*.py")):
        (texts / source.name).write_text(codecs.encode(source.read_text(), "rot13"))
    command = [sys.executable, str(ROOT / "prepare.py"), "--corpus", "local", str(texts), "--profile", "cpu"]
    knobs = ["--max-seq-len", "128", "--vocab-size", "512", "--eval-tokens", "32768", "--time-budget-s", f"{BUDGET_S}"]
    subprocess.run([*command, *knobs, "--out", str(folder / "set")], cwd=folder, check=True, capture_output=True)
    return Dataset.open(folder / "set")


class Twin(NamedTuple):
    audited: Measurement
    believed: Believed


class Finding(NamedTuple):
    """What became of a cheat and of its honest twin, in the sandbox and in the naive harness."""

    audited: Measurement
    audited_twin: Measurement
    believed: Believed
    believed_twin: Believed

    @property
    def verdict(self) -> str:
        """As cheats declare it. A gain is more than the audit's draw of positions explains."""
        if self.audited.failure is not None:
            return self.audited.failure.kind.value
        bpb, std_error_bpb, twin_bpb = self.audited.val_bpb, self.audited.std_error_bpb, self.audited_twin.val_bpb
        assert bpb is not None and std_error_bpb is not None and twin_bpb is not None, self.audited_twin.failure
        return "gain" if bpb < twin_bpb - STD_ERRORS * std_error_bpb - ALLOWED_BPB else "no gain"


@dataclass(frozen=True)
class Gallery:
    dataset: Dataset
    engine: Engine
    state_dir: Path
    harness: NaiveHarness
    full_audits: bool = True
    """Audit all runs as a merge requires. Otherwise only those of cheats that ask for it: others get as many cuts, but the
    kernel's caches are not emptied, after which every import takes seconds."""

    def find(self, cheats: Sequence[Cheat], pool: Executor) -> dict[str, Future[Finding]]:
        """By name. A run spends much of its time on imports, so two workers are well used."""
        honest = pool.submit(self.run_twin, "honest")

        def find(cheat: Cheat) -> Finding:
            source = compose(cheat.name, True)
            for _ in range(cheat.runs):
                audited = self.measure(source, cheat.limits, cheat.full)
            twin = self.run_twin(cheat.name) if cheat.own_twin else honest.result()
            return Finding(audited, twin.audited, self.harness.run(source, runs=cheat.runs), twin.believed)

        return {cheat.name: pool.submit(find, cheat) for cheat in cheats}

    def run_twin(self, name: str) -> Twin:
        source = compose(name, False)
        return Twin(self.measure(source), self.harness.run(source))

    def measure(
        self, source: str, limits: Mapping[str, float] = MappingProxyType({}), full: bool = False
    ) -> Measurement:
        """By the production path."""
        return measure(
            source,
            self.dataset,
            self.engine,
            budget_s=BUDGET_S,
            seed=SEED,
            device=find_device("cpu"),
            limits=Limits(**{**LIMITS, **limits}),  # type: ignore[arg-type]
            rigour=Rigour(lie_bpb=LIE_BPB, screen_cuts=CUTS),
            full_audit=lambda _: full or self.full_audits,
            state_dir=self.state_dir,
        )


# ---- the table -------------------------------------------------------------------------------------------------------

INTRODUCTION = """# The cheaters' gallery

Each row is a `train.py` with one cheat in it (`tests/redteam/cheats/NAME.py`). Its *honest twin* is the same text with `CHEAT = False`:
the same architecture, trained as long, without the cheat. All four numbers are validation bits per byte, lower is better:

* **twin, audited**: the honest twin, measured as everything is measured here (`sandbox.measure.measure`, the full audit);
* **twin, believed** and **cheat, believed**: what the original's harness in short (`tests/redteam/naive.py`) believes: the candidate runs
  beside its data, keeps its own time, scores itself, and its last printed `val_bpb` counts. Without this column the last one would prove
  nothing: a cheat that does not work is easily caught;
* **cheat, audited**: what became of the cheat here. *No gain* means that it was scored, and no better than its twin.

The models are tiny and train for a second, on text of which nothing lies in a container. Audits are made for lies of {lie_bpb:g} bits per
byte, which takes few cuts; an org's default is {default_lie_bpb:g}. `tests/redteam/test_cheats.py` repeats all of this; the table is made by

    python -m tests.redteam.gallery

Last made on {day}, 2 cores, CPU, runc: {count} cheats. {ended} ended without a score, {no_gain} were scored without a gain,
{gain} with one.

| attacks | cheat | what it does | twin, audited | twin, believed | cheat, believed | cheat, audited |
|---|---|---|---|---|---|---|
"""


def row(cheat: Cheat, finding: Finding) -> str:
    cells = (
        cheat.group,
        f"`{cheat.name}`",
        cheat.about.replace("|", "\\|"),
        number(finding.audited_twin.val_bpb),
        number(finding.believed_twin.bpb),
        number(finding.believed.bpb),
        outcome(finding),
    )
    return f"| {' | '.join(cells)} |\n"


def number(bpb: float | None) -> str:
    return "—" if bpb is None else f"{bpb:.4f}"


def outcome(finding: Finding) -> str:
    measured = finding.audited
    if measured.failure is None:
        return f"{measured.val_bpb:.4f} ± {measured.std_error_bpb:.4f}, **{finding.verdict}**"
    message = textwrap.shorten(measured.failure.message, MESSAGE_CHARS, placeholder=" …").replace("|", "\\|")
    return f"**{finding.verdict}**: {message}"


def main() -> None:
    cheats = read_cheats()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        state_dir, dataset = Path(name, ".autoresearch"), make_dataset(Path(name))
        with NaiveHarness(dataset.path) as harness:
            gallery = Gallery(dataset, pick_engine("runc", state_dir=state_dir), state_dir, harness)
            found = gallery.find(cheats, pool)
            findings = [found[cheat.name].result() for cheat in track(cheats, "cheating")]
    verdicts = Counter(finding.verdict for finding in findings)
    introduction = INTRODUCTION.format(
        lie_bpb=LIE_BPB,
        default_lie_bpb=Rigour.lie_bpb,
        day=date.today().isoformat(),
        count=len(cheats),
        ended=len(cheats) - verdicts["no gain"] - verdicts["gain"],
        no_gain=verdicts["no gain"],
        gain=verdicts["gain"],
    )
    TABLE.write_text(introduction + "".join(map(row, cheats, findings)))


if __name__ == "__main__":
    main()
