"""The doctor says of each thing how it is, in a line with what to do; it repairs what is ours, and only when told to."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.lease import acquire, quarantine, quarantines
from ledger.server import open_redis
from orgs import doctor
from orgs.doctor import Examination, Line
from orgs.lab import Lab
from orgs.orgfile import SandboxSettings
from tests.components import require
from tests.orgs.lab import environment, make_lab, run
from tests.sandbox.recorded_gpu import UUID, recorded_gpu

Lines = list[dict[str, str]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require(shutil.which("runc") is not None and os.geteuid() == 0, "runc is missing (apt-get install runc, as root)")
    return make_lab(tmp_path_factory.mktemp("lab"))


def examined(lab: Path, *arguments: str, code: int = 0, **variables: str) -> Lines:
    ended = run(lab, "doctor", "--engine", "runc", "--json", *arguments, **variables)
    assert ended.returncode == code, ended.stdout + ended.stderr
    found: Lines = json.loads(ended.stdout)
    return found


def of(lines: Lines, subject: str) -> list[tuple[str, str]]:
    return [(line["level"], line["says"]) for line in lines if line["subject"] == subject]


def levels(lines: Lines, subject: str) -> list[str]:
    return [level for level, _ in of(lines, subject)]


@pytest.fixture(scope="module")
def healthy(lab: Path) -> Lines:
    return examined(lab, ANTHROPIC_API_KEY="sk-sesame")


def test_a_healthy_lab_is_green_but_for_old_programs(healthy: Lines) -> None:
    subjects = [line["subject"] for line in healthy]
    expected = ["python", "torch", "engine", "escapes", "controls", "inside", "gpu", "redis", "ray", "disk", "leftovers", "datasets", "git", "keys"]  # fmt: skip
    assert [*dict.fromkeys(subjects)] == expected
    assert all(line["level"] == "green" or line["subject"] in ("escapes", "disk") for line in healthy), healthy
    assert all(line["fix"] for line in healthy if line["level"] != "green")


def test_every_control_is_proven_and_every_probe_shown_to_see(healthy: Lines) -> None:
    assert of(healthy, "controls") == [
        ("green", "27 of 27 hold in a real launch, and their probes see once the control is gone")
    ]
    ((_, inside),) = of(healthy, "inside")
    assert inside.startswith("torch ") and "adds up to 8" in inside


def test_a_key_is_found_and_never_shown(healthy: Lines) -> None:
    assert of(healthy, "keys") == [("green", "ANTHROPIC_API_KEY is set (and never shown)")]
    assert "sesame" not in json.dumps(healthy)


def test_the_screen_has_a_sign_and_a_line_for_each_thing_and_says_what_to_do(lab: Path, healthy: Lines) -> None:
    """With --strict a published way out is red."""
    shown = run(lab, "doctor", "--engine", "runc", "--strict", ANTHROPIC_API_KEY="sk-sesame")
    dangerous = [line for line in healthy if line["subject"] == "escapes" and line["level"] == "yellow"]
    strict = [line | {"level": "red"} if line in dangerous else line for line in healthy]
    assert shown.returncode == (3 if dangerous else 0), shown.stdout + shown.stderr
    signs = {"green": "✓", "yellow": "!", "red": "✗"}
    lines = [line.split()[:2] for line in shown.stdout.splitlines() if line[:1].strip()]
    lines = [line for line in lines if line != ["!", "controls"]]  # what a busy machine could not show this time
    assert lines == [[signs[line["level"]], line["subject"]] for line in strict]
    assert all(line["fix"] in shown.stdout for line in strict)


def test_what_is_broken_is_red_and_says_how_to_mend_it(lab: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(
        lab, tmp_path / "lab", symlinks=True, ignore=shutil.ignore_patterns(".git", "image", "redis")
    )
    (row,) = broken.glob(".autoresearch/datasets/*/val.bin")
    row.chmod(0o644)
    row.write_bytes(bytes(len(row.read_bytes())))
    lines = examined(broken, "--redis", "redis://127.0.0.1:1", "--device", "GPU-nowhere", code=3)
    red = {line["subject"]: line for line in lines if line["level"] == "red"}
    assert {"redis", "git", "datasets", "controls", "gpu"} <= set(red)
    assert "no Redis answers at redis://127.0.0.1:1" in red["redis"]["says"]
    assert "git init" in red["git"]["fix"]
    assert "does not match its hash" in red["datasets"]["says"] and "rm -r" in red["datasets"]["fix"]
    assert "no GPU answers to device 'GPU-nowhere'" in red["controls"]["says"]


def test_a_runtime_of_dockers_is_not_credited_to_runc(lab: Path) -> None:
    settings = SandboxSettings(engine="auto", runtime="nowhere")
    examination = Examination(Lab.open(lab), settings, None, False)
    (line,) = doctor.engine(examination)
    assert line.level.value == "red" and examination.engine is None, line


def test_a_flag_that_is_none_is_one_line(lab: Path) -> None:
    ended = run(lab, "doctor", "--engine", "podman")
    assert ended.returncode == 2 and "--engine" in ended.stderr and "Traceback" not in ended.stderr


def test_a_gpu_that_somebody_uses_and_one_in_quarantine_are_told_apart(lab: Path, tmp_path: Path) -> None:
    with open_redis(lab / ".autoresearch") as server, recorded_gpu(tmp_path, "busy") as say:
        quarantine(server.client, acquire(server.client, UUID, "runner", 60.0), "1011 MiB are still held")
        state, busy = seen(doctor.gpu, lab)
        assert state[1].startswith(
            "NVIDIA H100 80GB HBM3, driver 580.159.04, 78.7 of 79.6 GiB free, 1215 of 1980 MHz, 517 of 700 W, 66 °C"
        )
        assert busy == ("yellow", "used by python3 (pid 433)")
        assert ("red", f"{UUID} cannot be leased: 1011 MiB are still held") in seen(doctor.redis, lab)
        seen(doctor.redis, lab, clean=True)
        assert list(quarantines(server.client)) == [UUID], "lifted although it is in use"
        say("idle")
        lifted = ("green", f"lifted from GPU {UUID}: nothing uses it any more")
        assert lifted in seen(doctor.redis, lab, clean=True)
        assert quarantines(server.client) == {}


def seen(check: Callable[[Examination], Iterator[Line]], lab: Path, *, clean: bool = False) -> list[tuple[str, str]]:
    """What one check says of a lab, once the engines have been looked for."""
    examination = Examination(Lab.open(lab), SandboxSettings(engine="runc"), None, clean)
    list(doctor.engine(examination))
    return [(line.level.value, line.says) for line in check(examination)]


@pytest.fixture
def others(lab: Path) -> Iterator[dict[str, Any]]:
    """What is not ours: a process, a mount and a cgroup that look a little like it."""
    cgroup = next(path for path in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if path.is_dir())
    group = cgroup / "autoresearch-0000000000-somebody-train"
    group.mkdir()
    process = subprocess.Popen(["sleep", "600"])
    yield {"process": process, "group": group}
    process.kill()
    process.wait()
    group.rmdir()


def test_what_a_dead_host_left_is_found_and_removed_on_demand_and_nothing_else(
    lab: Path, others: dict[str, Any]
) -> None:
    dead = abandon_a_run(lab)
    left = {f"runc container {dead}", "run directory abandoned"}
    assert set(seen(doctor.leftovers, lab)) == {("yellow", f"{what} of a host that died") for what in left}
    assert set(seen(doctor.leftovers, lab, clean=True)) == {("green", f"removed {what}") for what in left}
    assert seen(doctor.leftovers, lab) == [("green", "none")]
    assert others["group"].is_dir() and others["process"].poll() is None


KILLED = """
import os, signal, sys, time
from pathlib import Path
from sandbox.device import find_device
from sandbox.engines import pick_engine
from sandbox.launch import with_outbox
from sandbox.profile import LaunchProfile, Limits, lab_id, reserved_uid
from sandbox.rundir import run_directory

state = Path(sys.argv[1])
engine = pick_engine("runc", state_dir=state)
with run_directory(state, "abandoned") as folder, reserved_uid() as uid:
    program = ("-c", "print('here', flush=True); import time; time.sleep(600)")
    profile = LaunchProfile(lab_id(state), "abandoned", "train", uid, program, (), find_device("cpu"), Limits.of(memory_gb=0.5))
    with with_outbox(engine, profile, folder) as (profile, _):
        container = engine.start(profile)
        while "here" not in container.log.text():
            time.sleep(0.1)
        print(profile.name, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def abandon_a_run(lab: Path) -> str:
    """A host process starts a container, and is killed. Returns the container's name."""
    command = [sys.executable, "-c", KILLED, str(lab / ".autoresearch")]
    killed = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    assert killed.returncode == -9
    return killed.stdout.strip()
