"""The ledger's commands as a person types them: look, import, back up, lose everything, restore, rebuild."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.lease import acquire
from ledger.server import open_redis
from sandbox.receipt import Key
from tests.ledger.night import Night
from tests.ledger.repository import Repository
from tests.ledger.samples import REFUSED
from tests.ledger.test_imports import RESULTS
from tests.orgs.lab import run


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab whose campaign `night` has two merges, a discarded, a refused and a proposed idea; nothing runs in it."""
    root = tmp_path_factory.mktemp("n") / "lab"
    repository = Repository(root)
    for name in ("prepare.py", "program.md"):
        (root / name).write_text("")
    (root / ".gitignore").write_text(".autoresearch/\n")
    repository.commit("a lab")
    state = root / ".autoresearch"
    with open_redis(state) as server:
        one = Night(server.client, acquire(server.client, "cpu", "runner", 60.0), repository, Key.of(state).sign)
        for source, bpb in (("LR = 0.5\n", 0.9), ("LR = 9\n", 1.1), ("LR = 0.4\n", 0.8)):
            one.scored(source, bpb)
            one.settle()
        one.ledger.review(one.org.coded("seed\n", one.champion.head()), REFUSED, {"reviewer": "r1"})
        one.org.propose("the last idea")
    return root


@pytest.fixture
def lab(night: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it."""
    shutil.copytree(night, tmp_path / "lab", ignore=shutil.ignore_patterns("*.sock"))
    yield tmp_path / "lab"


def said(lab: Path, *arguments: str, code: int = 0) -> str:
    """What a command prints; of one that is refused, its one line."""
    ended = run(lab, "ledger", *arguments)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    if code in (2, 3, 4):
        (line,) = ended.stderr.splitlines()
        return line
    return ended.stdout


def data(lab: Path, *arguments: str) -> Any:
    return json.loads(said(lab, *arguments, "--json"))


def git(lab: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=lab, check=True, capture_output=True, text=True).stdout.strip()


def lose_redis(lab: Path) -> None:
    shutil.rmtree(lab / ".autoresearch" / "redis")


def test_a_list_is_filtered_sorted_and_cut(lab: Path) -> None:
    def ids(*arguments: str) -> list[int]:
        return [row["id"] for row in data(lab, "list", *arguments)]

    assert ids("--sort", "bpb", "--limit", "2") == [4, 2]
    assert ids("--sort", "updated", "--state", "merged", "--lane", "improve") == [4, 2]
    assert ids("--author", "planner", "--role", "reviewer@r", "--since", "1h") == [2, 3, 4, 5]


def test_show_says_why_in_words(night: Path) -> None:
    shown = said(night, "show", "3")
    assert "lost: 0.200000 bpb not lower after 1 run" in shown
    assert "effect -0.200000, threshold 0.000000, n_c 1, K spent 2, p1 0.5" in shown and "run-2" in shown
    assert data(night, "show", "5")["why"] == "the reviewer refused it (seed_only): only a seed differs"


def test_status_is_of_the_newest_campaign_and_counts_good_receipts_alone(lab: Path) -> None:
    status = json.loads(run(lab, "status", "--json").stdout)
    assert (status["campaign"], status["results"]["verified"], status["results"]["worse"]) == ("night", 2, 1)
    assert (status["champion"]["experiment"], status["champion"]["bpb"], status["champion"]["fresh"]) == (4, 0.8, False)
    unknown = run(lab, "status", "-c", "nope")
    assert unknown.returncode == 2 and "no campaign nope" in unknown.stderr
    (lab / ".autoresearch" / "receipt.key").unlink()
    assert run(lab, "status").returncode == 3


def test_after_the_loss_of_redis_the_branch_is_enough(lab: Path) -> None:
    merged = data(lab, "list", "--state", "merged")
    assert "night exists already" in said(lab, "rebuild", "-c", "night", code=2)
    assert "nothing to rebuild" in said(lab, "rebuild", code=2)
    lose_redis(lab)
    (rebuilt,) = data(lab, "rebuild")
    assert (rebuilt["campaign"], rebuilt["merges"]) == ("night", 2)
    unlike = ("created_at", "updated_at")
    after = data(lab, "list")
    assert [{k: v for k, v in row.items() if k not in unlike} for row in after] == [
        {k: v for k, v in row.items() if k not in unlike} for row in merged
    ]
    assert "2 merges of a history that is lost" in said(lab, "verify")


def test_a_branch_that_tells_nothing_is_refused(lab: Path) -> None:
    git(lab, "branch", "autoresearch/old", "HEAD")
    lose_redis(lab)
    assert "does not tell what campaign it is of" in said(lab, "rebuild", "-c", "old", code=2)
    assert [one["campaign"] for one in data(lab, "rebuild")] == ["night"]


def test_a_backup_comes_back_after_the_loss_of_everything(lab: Path) -> None:
    before = data(lab, "list")
    head = git(lab, "rev-parse", "autoresearch/night")
    assert "receipt.key" in said(lab, "backup", "night.backup")
    held = data(lab, "restore", "--check", "night.backup")
    assert held["campaigns"] == ["night"] and held["branches"] == {"refs/heads/autoresearch/night": head}
    assert "has campaigns (night)" in said(lab, "restore", "night.backup", code=2)
    lose_redis(lab)
    git(lab, "branch", "-D", "autoresearch/night")
    assert "restored night.backup: campaigns night" in said(lab, "restore", "night.backup")
    assert data(lab, "list") == before
    assert git(lab, "rev-parse", "autoresearch/night") == head
    said(lab, "verify")


def test_a_backup_cut_short_is_refused(lab: Path) -> None:
    said(lab, "backup", "night.backup")
    content = (lab / "night.backup").read_bytes()
    (lab / "night.backup").write_bytes(content[:-100])
    for arguments in (["--check"], []):
        assert "is no whole backup" in said(lab, "restore", *arguments, "night.backup", code=2)
    assert "missing.backup: cannot be read" in said(lab, "restore", "missing.backup", code=2)


def test_an_import_is_looked_at_beside_the_lab_s_own_campaigns(lab: Path) -> None:
    (lab / "theirs.tsv").write_text(RESULTS)
    assert data(lab, "import", "theirs.tsv") == {"campaign": "import-theirs", "rows": 4}
    assert [row["id"] for row in data(lab, "list")] == [1, 2, 3, 4, 5, 6], "the lab's own comes first"
    theirs = ("-c", "import-theirs")
    assert [row["claimed_bpb"] for row in data(lab, "list", *theirs)] == [1.2045, 1.19001, 1.21, None]
    assert "(1.1900)" in said(lab, "list", *theirs)
    assert "says a results.tsv (keep); unsigned, and never measured here" in said(lab, "show", "2", *theirs)
    assert "4 imported rows of claims" in said(lab, "verify", *theirs)
    looked_at = run(lab, "status", *theirs)
    assert looked_at.returncode == 0 and "4 imported" in looked_at.stdout, looked_at.stderr
    said(lab, "export", "back.tsv", *theirs)
    assert (lab / "back.tsv").read_text() == RESULTS
    assert "exists already" in said(lab, "import", "theirs.tsv", code=2)
    (lab / "bad.tsv").write_text(RESULTS.splitlines()[0] + "\nbroken\n")
    assert "line 2: 1 columns" in said(lab, "import", "bad.tsv", code=2)
    refused = run(lab, "receipt", "show", "1", *theirs)
    assert refused.returncode == 2 and "was not measured" in refused.stderr


def test_an_export_is_of_the_format_that_is_asked_for(lab: Path) -> None:
    said(lab, "export", "night.txt", "--format", "jsonl")
    said(lab, "export", "night.jsonl")
    assert (lab / "night.txt").read_bytes() == (lab / "night.jsonl").read_bytes()
    assert ".tsv, .jsonl, .parquet" in said(lab, "export", "night.txt", code=2)
