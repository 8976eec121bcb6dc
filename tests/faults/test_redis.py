"""kill -9 of Redis itself, a full disk under it, and a log whose end is damaged."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ledger import Ledger
from ledger.champion import Champion
from ledger.inspection import inspect
from ledger.server import open_redis
from records import HostFault, State
from sandbox.receipt import Key
from tests.components import require
from tests.faults.campaign import Campaign, wake
from tests.faults.checker import check
from tests.ledger.samples import campaign as record_of

pytestmark = pytest.mark.timeout(900)

USUAL = ("arbiter", "git.ref_moved")
POINTS = [
    ("launcher", "launcher.working"),
    ("coder", "coder.written"),
    ("runner", "runner.taken"),
    ("runner", "runner.measured"),
    ("runner", "lease.renewing"),
    ("arbiter", "arbiter.prepared"),
    ("arbiter", "relay.renewed"),
    USUAL,
]


def server_of(campaign: Campaign) -> psutil.Process:
    """The embedded server: it names its socket in its title."""
    folder = str(campaign.root / ".autoresearch" / "redis")
    (server,) = [p for p in psutil.process_iter(["cmdline"]) if f"redis-server unixsocket:{folder}" in " ".join(p.info["cmdline"] or [])]  # fmt: skip
    return server


@pytest.mark.parametrize(
    ("process", "name"),
    [pytest.param(*point, marks=[] if point == USUAL else [pytest.mark.faults]) for point in POINTS],
)
def test_a_redis_that_is_killed_while_somebody_is_there_loses_nothing(
    campaign: Campaign, process: str, name: str
) -> None:
    reached = campaign.order(process, f"{name}:stop")
    launcher = campaign.start()
    campaign.wait_for(reached.exists, f"{process} at {name}")
    server_of(campaign).kill()
    wake(reached)
    campaign.end(launcher)
    assert campaign.codes[0] == 4 and "Redis stopped answering" in campaign.log()
    check(campaign)


# ---- a full disk -----------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size_kib: int) -> Iterator[Path]:
    """A disk of its own for a folder, with what is in it already. Yields a file that fills it up."""
    aside = folder.with_name(folder.name + ".aside")
    if folder.exists():
        folder.rename(aside)
    folder.mkdir(mode=0o700, parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k,mode=700", "none", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    require(mounted, "cannot mount a tmpfs (run as root, with CAP_SYS_ADMIN)")
    try:
        if aside.exists():
            shutil.copytree(aside, folder, dirs_exist_ok=True, symlinks=True)
        yield folder / "filler"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(filler: Path, leave_kib: int) -> None:
    free = os.statvfs(filler.parent)
    left = free.f_bavail * free.f_bsize - leave_kib * 1024
    with filler.open("wb") as file:
        file.write(b"\0" * max(0, left))


@pytest.mark.faults
def test_a_full_disk_under_redis_ends_the_launch_and_loses_nothing(campaign: Campaign) -> None:
    with small_disk(campaign.root / ".autoresearch" / "redis", 8192) as filler:
        fill(filler, 150)
        full = campaign.start()
        campaign.wait_for(lambda: full.exitcode is not None, "a full disk")
        assert full.exitcode == 4, campaign.log()
        seen = len(campaign.seen)
        again = campaign.start()
        campaign.wait_for(lambda: again.exitcode is not None, "a full disk again")
        assert again.exitcode == 4 and "is full, so Redis stopped answering: make room" in campaign.log()
        filler.unlink()
        campaign.end()
        assert len(campaign.seen) > seen > 0
        check(campaign)
        campaign.close()


@pytest.mark.faults
def test_a_full_disk_under_git_ends_the_launch_and_loses_nothing(campaign: Campaign) -> None:
    git = campaign.root / ".git"
    size = sum(path.stat().st_size + 4096 for path in git.rglob("*")) // 1024
    with small_disk(git, size + 4096) as filler:
        reached = campaign.order("arbiter", "arbiter.judged:stop:at=2")
        launcher = campaign.start()
        campaign.wait_for(reached.exists, "a verdict")
        fill(filler, 0)
        wake(reached)
        campaign.wait_for(lambda: launcher.exitcode is not None, "a full disk")
        assert launcher.exitcode == 4 and "No space left on device" in campaign.log()
        filler.unlink()
        campaign.end()
        check(campaign)
        campaign.close()


# ---- the end of the log ----------------------------------------------------------------------------------------------


def log_of(lab: Path) -> Path:
    return lab / ".autoresearch" / "redis" / "appendonly.aof"


def complaints(campaign: Campaign) -> list[str]:
    with campaign.opened() as ledger:
        assert ledger is not None
        key = Key.of(campaign.root / ".autoresearch")
        checks = inspect(ledger, Champion(campaign.root, ledger.name), key.complaint)
        return [complaint for check in checks for complaint in check.complaints]


def test_a_log_that_ends_before_a_merge_that_git_has_is_mended_by_looking_at_git(campaign: Campaign) -> None:
    reached = campaign.order("arbiter", "git.ref_moved:stop")
    launcher = campaign.start()
    campaign.wait_for(reached.exists, "a merge")
    size = log_of(campaign.root).stat().st_size
    seen = len(campaign.seen)
    wake(reached)
    campaign.wait_for(lambda: any(e.kind == "merging→merged" for e in campaign.seen), "the merge")
    launcher.kill()
    server_of(campaign).kill()
    os.truncate(log_of(campaign.root), size)
    with campaign.opened() as ledger:
        assert ledger is not None
        merging = ledger.experiments(states=[State.MERGING])
        assert len(merging) == 1
    del campaign.seen[seen:]  # the disk has forgotten them
    campaign.end()
    assert complaints(campaign) == []
    with campaign.opened() as ledger:
        assert ledger is not None and ledger.experiment(merging[0].id).state == State.MERGED


@pytest.mark.faults
def test_a_merge_that_the_log_has_lost_altogether_is_noticed(campaign: Campaign) -> None:
    reached = campaign.order("arbiter", "arbiter.judged:stop")
    launcher = campaign.start()
    campaign.wait_for(reached.exists, "a verdict")
    size = log_of(campaign.root).stat().st_size
    wake(reached)
    campaign.wait_for(lambda: any(e.kind == "merging→merged" for e in campaign.seen), "the merge")
    launcher.kill()
    server_of(campaign).kill()
    os.truncate(log_of(campaign.root), size)
    assert any("says that it merges" in complaint for complaint in complaints(campaign))


@pytest.mark.parametrize("damage", [b"this is no command\r\n" * 3, bytes(100)], ids=["text", "zeros"])
def test_garbage_at_the_end_of_the_log_is_told_with_what_to_do_and_that_mends_it(tmp_path: Path, damage: bytes) -> None:
    state = tmp_path / "s"
    with open_redis(state) as server:
        Ledger(server.client, "night").create(record_of("night"))
    log = state / "redis" / "appendonly.aof"
    whole = log.read_bytes()
    log.write_bytes(whole + damage)
    with pytest.raises(HostFault, match="is damaged") as refused, open_redis(state):
        pytest.fail("opened")
    assert "\n" not in str(refused.value)
    assert log.read_bytes() == whole + damage, "nothing is cut off without being asked"
    what_to_do = str(refused.value).partition("`")[2].partition("`")[0]
    mended = subprocess.run(["bash", "-c", what_to_do], capture_output=True, text=True, check=False)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert log.read_bytes() == whole
    with open_redis(state) as server:
        assert Ledger(server.client, "night").campaign() == record_of("night")
