"""What a coder's seat opens, and a person's command: the same preflight, with a documented exit code."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orgs.cli import app
from orgs.lab import Lab
from orgs.orgfile import OrgFile
from orgs.preflight import Preflight
from records import MissingComponent
from sandbox.dataset import Dataset
from sandbox.preflight import LIMITS
from tests.components import require
from tests.orgs.lab import make_lab

TINY = Path("orgs") / "tiny.toml"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """In which preflights have the weight of everybody: at the least one they would wait for as long as other tests go on."""
    require(os.geteuid() == 0 and shutil.which("runc") is not None, "preflights here run under runc as root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orgs.preflight.LIMITS", replace(LIMITS, cpu_shares=None))
        yield Lab.open(make_lab(tmp_path_factory.mktemp("lab")))


def command(lab: Lab, *arguments: str) -> Result:
    ended = CliRunner().invoke(app, ["preflight", *arguments, "--lab", str(lab.root)])
    assert not any((lab.state / "runs").iterdir())
    return ended


def test_a_candidate_that_passes_is_exit_code_0(lab: Lab) -> None:
    ended = command(lab, str(lab.root / "train.py"), "--org", str(lab.root / TINY), "--json")
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert told["outcome"] == "passes" and re.search(r"trained for [1-9]\d* steps", told["text"])


def test_a_candidate_that_fails_is_exit_code_5(lab: Lab) -> None:
    edit, dataset = lab.root / "edit.py", lab.state / "datasets" / "local-cpu"
    edit.write_text("def main(:\n")
    ended = command(lab, str(edit), "--dataset", str(dataset), "--engine", "runc")
    assert ended.exit_code == 5, ended.output
    assert ended.stdout.startswith("✗ crash: exit code 1 before start_clock(): SyntaxError: invalid syntax")
    assert '  File "/lab/train.py", line 1\n    def main(:\n' in ended.stdout


def test_a_seat_opens_one_from_its_org_file_and_proves_the_sandbox_once(lab: Lab) -> None:
    org = OrgFile.load(lab.root / TINY, lab.root)
    dataset = Dataset.open(lab.dataset(org.data), verify=False)
    attempt = Preflight.open(lab, dataset, org.sandbox)
    found = attempt(lab.train_source.replace("DEPTH = ", "DEPTH = THREE or "))
    assert found.outcome == "fails" and "NameError: name 'THREE' is not defined" in found.text
    assert 'File "/lab/train.py", line' in found.text and str(lab.root) not in found.text
    assert Preflight.open(lab, dataset, org.sandbox).engine is attempt.engine
    with pytest.raises(MissingComponent):
        Preflight.open(lab, dataset, org.sandbox.model_copy(update={"engine": "docker", "image": "nobody"}))
