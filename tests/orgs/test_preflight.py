"""What a coder's seat opens, and a person's command: the same preflight, with a documented exit code."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orgs.cli import app
from orgs.lab import Lab
from orgs.orgfile import OrgFile
from orgs.preflight import Preflight
from records import MissingComponent
from sandbox.dataset import Dataset
from sandbox.preflight import LIMITS
from tests.orgs.lab import run

TINY = "orgs/tiny.toml"


def test_the_command_and_what_a_seat_opens_say_what_passes_and_what_fails(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the weight of everybody: at the least one it would wait for as long as other tests keep this machine busy.
    monkeypatch.setattr("orgs.preflight.LIMITS", replace(LIMITS, cpu_shares=None))
    monkeypatch.chdir(lab)
    passed = CliRunner().invoke(app, ["preflight", "--org", TINY, "--json"])
    assert passed.exit_code == 0, passed.output
    told = json.loads(passed.stdout)
    assert told["outcome"] == "passes" and re.search(r"trained for [1-9]\d* steps", told["text"])

    place, org = Lab.open(lab), OrgFile.load(lab / TINY, lab)
    dataset = Dataset.open(place.dataset(org.data), verify=False)
    attempt = Preflight.open(place, dataset, org.sandbox)
    found = attempt((lab / "train.py").read_text().replace("DEPTH = ", "DEPTH = THREE or "))
    assert found.outcome == "fails" and "NameError: name 'THREE' is not defined" in found.text
    assert 'File "/lab/train.py", line' in found.text and str(lab) not in found.text
    assert Preflight.open(place, dataset, org.sandbox).engine is attempt.engine  # proven once
    with pytest.raises(MissingComponent):
        Preflight.open(place, dataset, org.sandbox.model_copy(update={"engine": "docker", "image": "nobody"}))
    assert not any((lab / ".autoresearch" / "runs").iterdir())


def test_a_candidate_that_fails_is_exit_code_5(lab: Path) -> None:
    (lab / "edit.py").write_text("def main(:\n")
    dataset = str(lab / ".autoresearch" / "datasets" / "local-cpu")
    failed = run(lab, "preflight", "edit.py", "--dataset", dataset, "--engine", "runc")
    assert failed.returncode == 5, failed.stderr
    assert failed.stdout.startswith("✗ crash: exit code 1 before start_clock(): SyntaxError: invalid syntax")
    assert '  File "/lab/train.py", line 1\n    def main(:\n' in failed.stdout
