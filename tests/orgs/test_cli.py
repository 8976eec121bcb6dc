"""What a newcomer gets wrong ends as one line that says what to do, with its documented exit code."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components import require
from tests.orgs.lab import ROOT, command, environment, make_lab, run


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run"],
        ["launch"],
        ["resume"],
        ["report"],
        ["status"],
        ["simulate"],
        ["ledger"],
        ["ledger", "list"],
        ["ledger", "show"],
        ["ledger", "export"],
        ["ledger", "replay"],
        ["ledger", "verify"],
        ["ledger", "import"],
        ["ledger", "rebuild"],
        ["ledger", "backup"],
        ["ledger", "restore"],
        ["audit"],
        ["preflight"],
        ["ledger", "cost"],
        ["ledger", "forecasts"],
        ["roles"],
        ["roles", "show"],
        ["roles", "check"],
        ["receipt"],
        ["receipt", "show"],
        ["receipt", "verify"],
    ],
    ids=lambda a: " ".join(a) or "top",
)
def test_every_command_has_help_with_an_example(arguments: list[str]) -> None:
    helped = run(ROOT, *arguments, "--help")
    assert helped.returncode == 0
    assert "Example:" in helped.stdout or "Exit codes" in helped.stdout


def test_no_command_waits_for_libraries_that_few_commands_use() -> None:
    loaded = subprocess.check_output(
        [sys.executable, "-c", "import sys, orgs.cli; print(*sys.modules)"], cwd=ROOT, env=environment(), text=True
    )
    slow = {"anthropic", "docker", "matplotlib", "optuna", "pyarrow", "ray", "scipy", "torch"}
    assert slow & set(loaded.split()) == set()


def refused(lab: Path, *arguments: str) -> tuple[int, str]:
    ended = run(lab, *arguments)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stderr


def test_outside_a_clone_the_line_says_so(tmp_path: Path) -> None:
    code, line = refused(tmp_path, "launch", "orgs/demo.toml")
    assert code == 2 and "clone of autoresearch-org" in line


def bare_lab(root: Path) -> Path:
    for name in ("train.py", "prepare.py", "program.md"):
        (root / name).write_text("")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def test_a_missing_org_file_is_named(tmp_path: Path) -> None:
    code, line = refused(bare_lab(tmp_path), "launch", "orgs/nope.toml")
    assert code == 2 and "orgs/nope.toml" in line


def test_an_empty_ledger_says_what_to_run(tmp_path: Path) -> None:
    code, line = refused(bare_lab(tmp_path), "ledger", "list")
    assert code == 3 and "autoresearch-org launch" in line


def test_an_unreadable_train_py_is_named(tmp_path: Path) -> None:
    code, line = refused(bare_lab(tmp_path), "run", "missing.py")
    assert code == 2 and "missing.py" in line


def test_an_unknown_profile_names_the_known_ones(tmp_path: Path) -> None:
    code, line = refused(bare_lab(tmp_path), "run", "train.py", "--profile", "tpu")
    assert code == 2 and "cpu, small, h100" in line


def test_a_redis_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    code, line = refused(bare_lab(tmp_path), "ledger", "list", "--redis", "redis://:secret@127.0.0.1:1/0")
    assert code == 3 and "127.0.0.1:1" in line and "secret" not in line


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    lab = bare_lab(tmp_path)
    (lab / ".autoresearch").write_text("in the way of the state folder")
    code, line = refused(lab, "ledger", "list")
    assert code == 4 and ".autoresearch" in line


def test_without_any_container_engine_the_line_says_how_to_get_one(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "hiding runc from a process takes root")
    hidden = "for bin in /usr/sbin /usr/local/sbin; do mount -t tmpfs none $bin; done; exec " + shlex.join(
        command("run", "train.py")
    )
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden],
        cwd=make_lab(tmp_path),
        env=environment() | {"DOCKER_HOST": "unix:///nowhere/docker.sock"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 3, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert "no Docker daemon answers" in line and "apt-get install runc" in line
