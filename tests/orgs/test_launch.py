"""A campaign end to end, with nothing replaced: real containers, real Ray, real Redis, real git."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyarrow import parquet

from ledger import Ledger
from ledger.server import open_redis
from records import Experiment, State
from sandbox.engines.cgroup import groups_with_prefix
from sandbox.profile import lab_id, name_prefix
from tests.components import require
from tests.ledger.conftest import SYSTEM_SERVER, running_server
from tests.ledger.test_imports import RESULTS
from tests.orgs.lab import command, environment, kill_group, make_lab, run, start, wait_until

pytestmark = pytest.mark.timeout(900)


def rows(lab: Path) -> list[dict[str, Any]]:
    listed = run(lab, "ledger", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    found: list[dict[str, Any]] = json.loads(listed.stdout)
    return found


def experiments(lab: Path) -> list[Experiment]:
    with open_redis(lab / ".autoresearch") as server:
        names = Ledger.campaigns(server.client)
        return Ledger(server.client, names[-1]).experiments() if names else []


def git(lab: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=lab, check=True, capture_output=True, text=True).stdout


def left_behind(lab: Path) -> list[str]:
    """Processes, mounts, cgroups and run directories of the lab."""
    found = [
        " ".join(p.info["cmdline"])[:160]
        for p in psutil.process_iter(["cmdline", "cwd"])
        if str(lab) in " ".join(p.info["cmdline"] or [])
    ]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(lab) in line]
    found += groups_with_prefix(name_prefix(lab_id(lab / ".autoresearch")))
    found += [str(path) for path in (lab / ".autoresearch" / "runs").glob("*")]
    return found


def test_a_campaign_measures_judges_and_merges_on_its_own_branch_and_leaves_nothing_behind(lab: Path) -> None:
    before = git(lab, "status", "--porcelain"), git(lab, "rev-parse", "HEAD"), (lab / ".git" / "index").read_bytes()
    launched = run(lab, "launch", "orgs/tiny.toml")
    assert launched.returncode == 0, launched.stdout + launched.stderr
    assert "2 experiments judged" in launched.stdout

    listed = rows(lab)
    baseline = next(row for row in listed if row["lane"] == "baseline")
    judged = [
        row
        for row in listed
        if row["lane"] == "improve" and row["state"] in ("merged", "discarded", "crashed", "invalid")
    ]
    assert baseline["state"] == "merged" and baseline["val_bpb"] > 0
    assert len(judged) == 2

    merged = [row for row in judged if row["state"] == "merged"]
    branch = "autoresearch/" + json.loads(run(lab, "ledger", "show", "1", "--json").stdout)["campaign"]
    *commits, start = git(lab, "rev-list", f"HEAD..{branch}").split()
    assert git(lab, "diff", "--stat", "HEAD", start) == "", "the start is the working copy as it was"
    assert [row["commit"] for row in merged] == list(reversed(commits))
    for row in merged:
        shown = json.loads(run(lab, "ledger", "show", str(row["id"]), "--json").stdout)
        assert git(lab, "show", f"{row['commit']}:train.py") == shown["candidate"]["source"]
        assert f"Experiment: {row['id']}" in git(lab, "log", "-1", "--format=%B", row["commit"])

    after = git(lab, "status", "--porcelain"), git(lab, "rev-parse", "HEAD"), (lab / ".git" / "index").read_bytes()
    assert after == before
    assert left_behind(lab) == []

    exported = run(lab, "ledger", "export", "results.tsv")
    assert exported.returncode == 0
    lines = (lab / "results.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert len(lines) >= 4 and all(len(line.split("\t")) == 5 for line in lines)
    assert run(lab, "ledger", "export", "night.parquet").returncode == 0
    assert parquet.read_table(lab / "night.parquet")["id"].to_pylist() == [row["id"] for row in listed]
    assert run(lab, "ledger", "export", "night.doc").returncode == 2
    best = json.loads(
        run(lab, "ledger", "list", "--state", "merged", "--sort", "bpb", "--since", "1h", "--json").stdout
    )
    assert {row["id"] for row in best} == {row["id"] for row in listed if row["state"] == "merged"}
    assert [row["val_bpb"] for row in best] == sorted(row["val_bpb"] for row in best)
    assert run(lab, "report").returncode == 0 and (lab / "progress.png").stat().st_size > 5000
    its_headline(lab, launched.stdout, merged, len(judged))
    the_morning_after(lab, baseline["id"])
    the_loss_of_redis(lab, merged)


def test_no_org_goes_on_from_an_import(lab: Path) -> None:
    (lab / "theirs.tsv").write_text(RESULTS)
    assert run(lab, "ledger", "import", "theirs.tsv").returncode == 0
    resumed = run(lab, "resume", "orgs/tiny.toml", "-c", "import-theirs")
    assert resumed.returncode == 2 and "was imported from a results.tsv, to look at" in resumed.stderr
    listed = run(lab, "ledger", "list", "-c", "import-theirs", "--json")
    assert {row["state"] for row in json.loads(listed.stdout)} == {"imported"}


def its_headline(lab: Path, said: str, merged: list[dict[str, Any]], judged: int) -> None:
    """The last line counts; `report --test` measures what a launch without a headline has not. tests/orgs/test_truth.py has one with it."""
    assert f"{len(merged)} merged, unverified, 0 within noise" in said
    assert touches_of_the_test_split(lab) == []
    headline = run(lab, "report", "--test", "--runs", "1", "--stolen-cpu", "1")
    told = "on the sealed test split" if merged else "nothing merged: the champion is the start"
    assert headline.returncode == 0 and told in headline.stdout, headline.stdout + headline.stderr
    assert len(touches_of_the_test_split(lab)) == (2 if merged else 0)
    status = json.loads(run(lab, "status", "--json").stdout)
    assert status["results"]["verified"] == len(merged) and status["spending"]["promises"] is False
    assert sum(status["results"][end] for end in ("verified", "within_noise", "worse", "invalid")) == judged
    assert (status["headline"] is not None) is bool(merged)


def the_morning_after(lab: Path, id: int) -> None:
    """What a person does with a night: check a receipt, measure again, look at the sealed split."""
    shown = run(lab, "receipt", "show", str(id))
    (lab / "receipt.json").write_text(shown.stdout)
    verified = run(lab, "receipt", "verify", "receipt.json")
    assert verified.returncode == 0 and "signed with key" in verified.stdout, verified.stderr
    (lab / "receipt.json").write_text(shown.stdout.replace('"val_bpb": ', '"val_bpb": 0'))
    assert run(lab, "receipt", "verify", "receipt.json").returncode == 2
    (lab / "receipt.json").write_text(shown.stdout.replace('"data_seed": ', '"data_seed": 1'))
    refused = run(lab, "receipt", "verify", "receipt.json")
    assert refused.returncode == 6 and "not what was signed" in refused.stdout

    receipt = json.loads(shown.stdout)
    assert receipt["audit"]["level"] == "full" and receipt["audit"]["power"] >= 0.99
    replayed = run(lab, "ledger", "replay", str(id), "--runs", "2", "--stolen-cpu", "1", "--json")
    assert replayed.returncode in (0, 6), replayed.stderr
    result = json.loads(replayed.stdout)
    assert result["within_noise"] is (abs(result["difference_bpb"]) <= result["bound_bpb"])
    assert [m["seed"] for m in result["runs"]] == [receipt["seed"]] * 2 and result["changed"] == []
    assert {m["hashes"]["source"] for m in result["runs"]} == {receipt["hashes"]["source"]}

    checked = run(lab, "ledger", "verify")
    assert checked.returncode == 0 and "✓ history" in checked.stdout, checked.stdout + checked.stderr
    with open_redis(lab / ".autoresearch") as server:
        key = Ledger(server.client, Ledger.campaigns(server.client)[-1]).row_key(id)
        server.client.hset(key, "candidate", str(server.client.hget(key, "candidate")).replace("seed", "sEed", 1))
    checked = run(lab, "ledger", "verify")
    assert checked.returncode == 6 and f"#{id}: its candidate is not what the history says" in checked.stdout
    assert left_behind(lab) == []


def the_loss_of_redis(lab: Path, merged: list[dict[str, Any]]) -> None:
    """The branch gives back what was merged, with receipts that still verify; without the key none does."""
    shutil.rmtree(lab / ".autoresearch" / "redis")
    (rebuilt,) = json.loads(run(lab, "ledger", "rebuild", "--json").stdout)
    assert rebuilt["merges"] == len(merged)
    again = [row for row in rows(lab) if row["lane"] == "improve"]
    assert [(row["commit"], row["val_bpb"]) for row in again] == [(row["commit"], row["val_bpb"]) for row in merged]
    checked = run(lab, "ledger", "verify")
    assert checked.returncode == 0 and "rebuilt from git" in checked.stdout, checked.stdout + checked.stderr
    (lab / ".autoresearch" / "receipt.key").unlink()
    assert run(lab, "ledger", "verify").returncode == 3


def touches_of_the_test_split(lab: Path) -> list[str]:
    """The ledger's events about it."""
    with open_redis(lab / ".autoresearch") as server:
        events = Ledger(server.client, Ledger.campaigns(server.client)[-1]).events()
    return [event.detail for event in events if event.kind == "test split"]


def test_docker_ray_and_redis_that_are_already_started_serve_as_well(tmp_path: Path, docker_daemon: str) -> None:
    require(SYSTEM_SERVER is not None, "redis-server is not installed: apt-get install redis-server")
    lab = make_lab(tmp_path, engine="docker", experiments=1)
    weak = ("--appendonly", "yes", "--appendfsync", "everysec")
    with (
        ray_cluster() as address,
        tempfile.TemporaryDirectory(prefix="r-") as folder,
        running_server(Path(folder), *weak) as url,
    ):
        refused = run(lab, "launch", "orgs/tiny.toml", "--redis", url, RAY_ADDRESS=address)
        assert refused.returncode == 2 and "set it with CONFIG SET appendfsync always" in refused.stderr
        given = ("--redis", url, "--allow-weak-redis")
        launched = run(lab, "launch", "orgs/tiny.toml", *given, RAY_ADDRESS=address)
        assert launched.returncode == 0, launched.stdout + launched.stderr
        assert "this Redis is weak, and every receipt will say so: appendfsync is everysec" in launched.stdout
        shown = json.loads(run(lab, "ledger", "show", "1", "--redis", url, "--json").stdout)
        assert shown["measurements"][0]["ledger_weakness"].startswith("appendfsync is everysec")
        assert f"docker sandbox · Ray cluster at {address}" in launched.stdout
        assert "1 experiment judged" in launched.stdout
        assert left_behind(lab) == []
        assert answers(int(address.rpartition(":")[2])), "the cluster goes on without us"
    refused = run(lab, "launch", "orgs/tiny.toml", RAY_ADDRESS=address)
    assert refused.returncode == 3 and f"no Ray cluster answers at RAY_ADDRESS={address}" in refused.stderr


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Address of what `ray start` starts, for as long as the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [f"--port={port}", "--num-cpus=1", "--include-dashboard=false", "--node-ip-address=127.0.0.1", "--block"]
    ray = Path(sys.executable).with_name("ray")
    # A folder of its own with a short name: Ray's sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [ray, "start", "--head", f"--temp-dir={folder}", *options],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until(lambda: answers(port), "the Ray cluster")
            yield f"127.0.0.1:{port}"
        finally:
            kill_tree(process)


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def test_a_killed_runner_and_then_a_killed_launcher_lose_nothing(lab: Path) -> None:
    process = start(lab, "launch", "orgs/tiny.toml")
    try:
        wait_until(lambda: any(e.state == State.RUNNING for e in experiments(lab)), "a first run")
        runner = psutil.Process(holder_of_the_run(lab))
        assert runner.name().startswith("ray::") and within(runner, process.pid)
        runner.kill()
        wait_until(lambda: any(e.score for e in experiments(lab)), "the baseline, measured by the restarted runner")
        kept = [e for e in experiments(lab) if e.score]
    finally:
        kill_tree(process)

    again = run(lab, "launch", "orgs/tiny.toml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on with campaign" in again.stdout
    after = {e.id: e for e in experiments(lab)}
    for experiment in kept:
        assert after[experiment.id].measurements[: len(experiment.measurements)] == experiment.measurements
    assert sum(e.state.final and e.lane == "improve" and e.attempts > 0 for e in after.values()) == 2
    assert left_behind(lab) == []


def holder_of_the_run(lab: Path) -> int:
    """Process that holds the lease under which the first experiment runs."""
    with open_redis(lab / ".autoresearch") as server:
        ledger = Ledger(server.client, Ledger.campaigns(server.client)[-1])
        (running,) = ledger.running()
        holder = str(server.client.hget(ledger.run_key(running.experiment), "holder"))
        return int(holder.rpartition("/")[2])


def within(process: psutil.Process, ancestor: int) -> bool:
    try:
        return any(parent.pid == ancestor for parent in process.parents())
    except psutil.Error:
        return False


def kill_tree(process: "subprocess.Popen[Any]") -> None:
    """kill -9 of the launcher and of everything below it, its Ray included."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    kill_group(process)
    for child in below:
        try:
            child.kill()
        except psutil.Error:
            continue


@pytest.mark.faults  # a minute; in every run tests/faults kills Redis under cheaper campaigns
def test_a_killed_redis_ends_the_launch_in_one_line_and_loses_nothing(lab: Path) -> None:
    process = start(lab, "launch", "orgs/tiny.toml")
    wait_until(lambda: any(e.state == State.RUNNING for e in experiments(lab)), "a first run")
    before = [e.id for e in experiments(lab)]
    server = next(p for p in psutil.process_iter(["cmdline"]) if is_redis_of(lab, p.info["cmdline"] or []))
    server.kill()
    assert process.wait(timeout=300) == 4, (lab / "launch.log").read_text()
    log = (lab / "launch.log").read_text()
    assert "Redis stopped answering" in log and "Traceback" not in log
    assert [e.id for e in experiments(lab)] == before
    again = run(lab, "launch", "orgs/tiny.toml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on with campaign" in again.stdout
    assert left_behind(lab) == []


def is_redis_of(lab: Path, cmdline: list[str]) -> bool:
    return any("redis-server" in part for part in cmdline[:1]) and str(lab) in " ".join(cmdline)


def test_ctrl_c_drains_and_the_next_launch_goes_on(lab: Path) -> None:
    process = start(lab, "launch", "orgs/tiny.toml")
    wait_until(lambda: any(e.state == State.RUNNING for e in experiments(lab)), "a first run")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=300) == 130, (lab / "launch.log").read_text()
    assert all(e.state != State.RUNNING for e in experiments(lab))
    assert any(e.score for e in experiments(lab)), "draining finishes what runs"
    assert left_behind(lab) == []
    again = run(lab, "launch", "orgs/tiny.toml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on with campaign" in again.stdout


def test_a_train_py_that_fails_stops_the_launch_with_its_reason(lab: Path) -> None:
    (lab / "train.py").write_text((lab / "train.py").read_text().replace("def main(", "def main_is_gone("))
    launched = run(lab, "launch", "orgs/tiny.toml")
    assert launched.returncode == 5, launched.stdout + launched.stderr
    assert "train.py itself fails" in launched.stderr and "Traceback" not in launched.stderr


def test_without_a_git_repository_the_line_says_what_to_run(lab: Path) -> None:
    shutil.rmtree(lab / ".git")
    launched = run(lab, "launch", "orgs/tiny.toml")
    assert launched.returncode == 3, launched.stdout + launched.stderr
    assert "git init" in launched.stderr and "Traceback" not in launched.stderr


def test_run_measures_one_file_and_prints_json(lab: Path) -> None:
    process = subprocess.run(
        command("run", "train.py", "--dataset", ".autoresearch/datasets/local-cpu", "--budget-s", "1.5", "--engine", "runc", "--device", "cpu", "--stolen-cpu", "1", "--json"),
        cwd=lab, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    measured = json.loads(process.stdout)
    assert measured["status"] == "ok" and measured["engine"] == "runc" and measured["failure"] is None
    assert 0 < measured["val_bpb"] < 8 and measured["num_steps"] > 0
    assert measured["startup_seconds"] > 0 and measured["score_seconds"] > 0 and measured["train_seconds"] > 0
    assert len(measured["hashes"]["source"]) == 64
    assert left_behind(lab) == []


def test_a_candidate_that_crashes_ends_with_code_5_and_its_last_line(lab: Path) -> None:
    (lab / "broken.py").write_text("raise ValueError('no such luck')\n")
    process = run(
        lab,
        "run",
        "broken.py",
        "--dataset",
        ".autoresearch/datasets/local-cpu",
        "--engine",
        "runc",
        "--device",
        "cpu",
        "--json",
    )
    assert process.returncode == 5, process.stderr
    failure = json.loads(process.stdout)["failure"]
    assert failure["kind"] == "crash" and "no such luck" in failure["message"]
