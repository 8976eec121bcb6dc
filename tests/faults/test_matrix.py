"""kill -9 at every failpoint, of every process that gets there: the campaign comes to its end, nothing lost, nothing doubled.

And SIGSTOP, past every lease: whoever slept through its successor's work changes nothing when it wakes up.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign, drifting, wake
from tests.faults.checker import check
from tests.faults.table import rows

pytestmark = pytest.mark.timeout(900)

CASES = [(p, row.name) for row in rows() for p in row.processes if p != "runner (sandbox)"]
USUAL = {
    ("launcher", "launcher.working"),
    ("coder", "coder.claimed"),
    ("runner", "runner.measured"),
    ("arbiter", "arbiter.intended"),
    ("arbiter", "git.ref_moved"),
}
"""Killed in every test run; all others when asked for by the marker."""
ENDS = ("lease.closing", "lease.released")
"""Where a process has nothing left to do when it wakes up."""
STOPPED = [(p, name) for p, name in CASES if p != "launcher" and name not in ENDS]
STOPPED += [("launcher", "launcher.locked"), ("launcher", "launcher.working")]
USUAL_STOPPED = {("arbiter", "relay.renewed")}
FIRST_IDEA = 5
"""Which run that is: the start, and three repeats of it, come before."""
Meanwhile = Callable[[], None]


def cases(all: list[tuple[str, str]], usual: set[tuple[str, str]]) -> list[object]:
    assert usual <= set(all)
    return [pytest.param(*case, id=f"{case[1]}-{case[0]}", marks=[] if case in usual else [pytest.mark.faults]) for case in all]  # fmt: skip


# ---- what leads to places that an undisturbed campaign does not come to ----------------------------------------------


def after(mark: Path, do: Callable[[], None]) -> Meanwhile:
    """Do something once, as soon as a mark is there."""
    done: list[bool] = []

    def look() -> None:
        if mark.exists() and not done:
            done.append(True)
            do()

    return look


def a_commit_by_hand_while_it_runs(campaign: Campaign) -> Meanwhile:
    return after(campaign.order("runner", f"runner.taken:sleep=1:at={FIRST_IDEA}", "way"), campaign.commit_by_hand)


def a_commit_by_hand_before_it_lands(campaign: Campaign) -> Meanwhile:
    return after(campaign.order("arbiter", "relay.checked:sleep=1", "way"), campaign.commit_by_hand)


def a_second_launch(campaign: Campaign) -> Meanwhile:
    campaign.order("launcher", "launcher.working:kill:at=20", "way")
    return lambda: None


def a_launch_that_dies_while_an_idea_is_claimed(campaign: Campaign) -> Meanwhile:
    way = campaign.order("coder", "coder.claimed:stop", "way")

    def die() -> None:
        campaign.launchers[-1].kill()
        wake(way, signal.SIGKILL)

    return after(way, die)


def an_interrupt_while_it_runs(campaign: Campaign) -> Meanwhile:
    def interrupt() -> None:
        pid = campaign.launchers[-1].pid
        assert pid is not None
        os.kill(pid, signal.SIGINT)

    return after(campaign.order("runner", f"runner.taken:sleep=1:at={FIRST_IDEA}", "way"), interrupt)


def a_machine_that_drifts(campaign: Campaign) -> Meanwhile:
    drifting(campaign.root).touch()
    return lambda: None


WAYS: dict[str, Callable[[Campaign], Meanwhile]] = {
    "arbiter.sent_back": a_machine_that_drifts,
    "arbiter.unseated": a_machine_that_drifts,
    "arbiter.rebased": a_commit_by_hand_while_it_runs,
    "relay.abandoned": a_commit_by_hand_before_it_lands,
    "launcher.draining": an_interrupt_while_it_runs,
    "launcher.reopened": a_second_launch,
    "launcher.released": a_launch_that_dies_while_an_idea_is_claimed,
}


def on_the_way_to(name: str, campaign: Campaign) -> Meanwhile:
    return WAYS[name](campaign) if name in WAYS else lambda: None


# ---- the tests -------------------------------------------------------------------------------------------------------


@pytest.mark.faults
def test_a_campaign_without_a_fault_needs_one_launch(campaign: Campaign) -> None:
    campaign.end()
    check(campaign)
    assert campaign.codes == [0]


@pytest.mark.parametrize(("process", "name"), cases(CASES, USUAL))
def test_a_process_that_is_killed_there_loses_and_doubles_nothing(campaign: Campaign, process: str, name: str) -> None:
    meanwhile = on_the_way_to(name, campaign)
    reached = campaign.order(process, f"{name}:kill")
    campaign.end(meanwhile=meanwhile)
    assert reached.exists(), campaign.log()
    check(campaign)


@pytest.mark.parametrize(("process", "name"), cases(STOPPED, USUAL_STOPPED))
def test_a_process_that_sleeps_there_past_its_lease_changes_nothing_when_it_wakes(
    campaign: Campaign, process: str, name: str
) -> None:
    """Its launcher dies meanwhile, and a second one goes on with processes of its own."""
    meanwhile = on_the_way_to(name, campaign)
    reached = campaign.order(process, f"{name}:stop")
    first = campaign.start()
    campaign.wait_for(
        lambda: reached.exists() or first.exitcode is not None, f"{process} at {name}", meanwhile=meanwhile
    )
    assert reached.exists(), campaign.log()
    if process != "launcher":
        first.kill()
    before = len(campaign.seen)
    second = campaign.start()
    campaign.wait_for(lambda: len(campaign.seen) >= before + 4 or second.exitcode is not None, "the second launch")
    wake(reached)
    campaign.end(second)
    if process == "launcher":
        first.join(60)
        assert first.exitcode == 4 and "another launcher took over" in campaign.log()
    check(campaign)
