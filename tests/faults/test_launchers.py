"""Two launchers of one campaign; clocks that jump; and the launcher as it is, with Ray and containers, killed for real."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import redis

import failpoint
from ledger import Ledger
from ledger.lease import LeaseHeld, acquire
from ledger.server import open_redis
from tests.components import require
from tests.faults.campaign import Campaign, campaign_in
from tests.faults.checker import check
from tests.faults.table import ROOT, rows
from tests.orgs.lab import make_lab, run

pytestmark = pytest.mark.timeout(1800)

# ---- two launchers ---------------------------------------------------------------------------------------------------


@pytest.mark.faults
def test_of_two_launchers_one_works_and_the_other_says_who_does(campaign: Campaign) -> None:
    first = campaign.start()
    campaign.wait_for(lambda: bool(campaign.seen), "a campaign")
    second = campaign.start()
    campaign.wait_for(lambda: second.exitcode is not None, "the second launcher")
    assert second.exitcode == 4 and "is held by" in campaign.log()
    campaign.end(first)
    assert campaign.codes == [0]
    check(campaign)


@pytest.mark.faults
def test_launchers_that_start_together_make_one_campaign(campaign: Campaign) -> None:
    launchers = [campaign.start() for _ in range(3)]
    campaign.wait_for(lambda: all(one.exitcode is not None for one in launchers), "all launchers")
    assert sorted(one.exitcode for one in launchers if one.exitcode is not None) == [0, 4, 4], campaign.log()
    check(campaign)


# ---- clocks ----------------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from ledger.lease import hold
from ledger.server import connect
with hold(connect(sys.argv[1]), "gpu", 0.6) as keeper:
    print("held", flush=True)
    time.sleep(2.0)
    print("lost" if keeper.lost.is_set() else "kept", flush=True)
    sys.stdin.read()
"""


def test_a_client_in_another_time_holds_its_lease_as_long_as_anybody(tmp_path: Path) -> None:
    """Its monotonic clock is eleven days ahead: a lease is measured by the server's clock."""
    ahead = ["unshare", "--time", "--monotonic", "1000000", "--boottime", "1000000"]
    possible = os.geteuid() == 0 and subprocess.run([*ahead, "true"], capture_output=True).returncode == 0
    require(possible, "no time namespaces here (run as root on Linux 5.6 or later)")
    with open_redis(tmp_path / "s") as server:
        command = [*ahead, sys.executable, "-c", HOLD, server.url]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        holder = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(LeaseHeld) as held:
            acquire(server.client, "gpu", "somebody else", 1.0)
        assert held.value.remaining_s <= 0.6
        assert holder.stdout.readline() == "kept\n"
        first = int(str(server.client.get("autoresearch:fence:gpu")))
        for process in (*psutil.Process(holder.pid).children(), psutil.Process(holder.pid)):
            process.kill()
        holder.wait()
        lease = acquired(server.client)
        assert lease == first + 1


def acquired(client: redis.Redis) -> int:
    deadline = time.monotonic() + 60
    while True:
        try:
            return acquire(client, "gpu", "successor", 1.0).fence
        except LeaseHeld:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.faults
def test_a_campaign_whose_clocks_jump_by_days_is_like_any_other(campaign: Campaign) -> None:
    """The wall clock of every process goes to and fro by a day at each look."""
    campaign.jumpy = True
    campaign.order("arbiter", "relay.landed:kill")
    campaign.end()
    check(campaign)


# ---- Ray and containers ----------------------------------------------------------------------------------------------


def need_runc() -> None:
    require(os.geteuid() == 0 and shutil.which("runc") is not None, "needs runc, as root: apt-get install runc")


@pytest.fixture(scope="session")
def real_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lab(tmp_path_factory.mktemp("real"), experiments=1)


SANDBOXED = [row.name for row in rows() if row.processes == ["runner (sandbox)"]]


@pytest.mark.faults
@pytest.mark.parametrize("name", SANDBOXED)
def test_a_runner_that_is_killed_while_it_measures_loses_and_doubles_nothing(real_template: Path, name: str) -> None:
    need_runc()
    with campaign_in(real_template) as campaign:
        campaign.real, campaign.experiments = True, 1
        reached = campaign.order("runner", f"{name}:kill")
        campaign.end()
        assert reached.exists(), campaign.log()
        check(campaign)
        assert list((campaign.root / ".autoresearch" / "runs").iterdir()) == []


@pytest.mark.faults
@pytest.mark.parametrize("name", ["launcher.seated", "launcher.working", "runner.measured", "relay.landed"])
def test_a_real_launch_that_is_killed_or_whose_actor_is_loses_and_doubles_nothing(
    real_template: Path, name: str
) -> None:
    need_runc()
    with campaign_in(real_template) as campaign:
        campaign.real, campaign.experiments = True, 1
        text = f"{name}:kill:once={campaign.mark('reached')}" + (":at=8" if name == "launcher.working" else "")
        for _ in range(3):
            launched = run(campaign.root, "launch", "orgs/tiny.toml", **{failpoint.VARIABLE: text})
            if launched.returncode == 0:
                break
        assert launched.returncode == 0, launched.stdout + launched.stderr
        with campaign.opened() as ledger:
            assert isinstance(ledger, Ledger)
        if name != "relay.landed":  # whether anything is better is the runs' business
            assert campaign.mark("reached").exists()
        check(campaign)
