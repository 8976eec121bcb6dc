"""Random schedules of everything that can happen to a campaign, against a real server and a real repository.

A model makes the same calls and must answer the same; afterwards a checker looks at what is left. Ends of processes are
played at the calls between which they fall, so they cost nothing; the server is killed for real.
"""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from ledger import Ledger
from ledger.champion import Champion
from ledger.lease import acquire
from ledger.server import embedded, connect, start
from records import State
from tests.ledger import schedules
from tests.ledger.checker import complaints
from tests.ledger.repository import START, Repository
from tests.ledger.samples import campaign, program, scored
from tests.ledger.schedules import DEVICES, SEATS, Night, signature

WORKERS = 2
SCHEDULES = int(os.environ.get("SCHEDULES", "2000"))
STEPS = 25
MEMORY = next((folder for folder in ("/dev/shm",) if os.access(folder, os.W_OK)), None)
"""A disk would only make them slow: what is killed here are processes, never the kernel."""


class Site:
    """A server and a repository, in which one schedule follows another."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.socket = folder / "redis.sock"
        folder.mkdir()
        start(folder, self.socket)
        self.client = connect(f"unix://{self.socket}")
        self.repository = Repository(folder / "lab")
        self.schedules = 0

    def night(self, seed: int) -> Night:
        """A campaign of its own, whose start is measured."""
        self.client.flushall()
        self.schedules += 1
        name = f"night-{self.schedules}"
        champion = Champion(self.repository.root, name)
        base = champion.start(START)
        Ledger(self.client, name).create(campaign(name, base))
        return Night(self.client, champion, name, seed)

    def kill_server(self) -> None:
        os.kill(self.client.info("server")["process_id"], signal.SIGKILL)
        self.client.connection_pool.disconnect()
        start(self.folder, self.socket)

    def close(self) -> None:
        self.client.shutdown(nosave=True)


class Schedule(RuleBasedStateMachine):
    """What can happen to a campaign, in any order."""

    site: Site

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.server_killed = False
        self.night = self.site.night(seed)
        self.night.advance("arbiter", 7)
        self.night.advance("runner a", 7)

    @rule(name=st.sampled_from(SEATS), calls=st.integers(1, 8))
    def one_works(self, name: str, calls: int) -> None:
        self.night.advance(name, calls)

    @rule(calls=st.integers(2, 12))
    def all_work(self, calls: int) -> None:
        for name in SEATS:
            self.night.advance(name, calls)

    @rule(name=st.sampled_from(SEATS), calls=st.integers(0, 8), after_call=st.booleans())
    def one_is_killed(self, name: str, calls: int, after_call: bool) -> None:
        self.night.advance(name, calls)
        self.night.kill(name, after_call=after_call)

    @rule(name=st.sampled_from(SEATS), calls=st.integers(0, 8))
    def a_call_arrives_twice(self, name: str, calls: int) -> None:
        self.night.advance(name, calls)
        self.night.seats[name].twice = True
        self.night.advance(name, 1)

    @rule(name=st.sampled_from(SEATS), calls=st.integers(0, 8))
    def one_falls_asleep(self, name: str, calls: int) -> None:
        self.night.advance(name, calls)
        self.night.suspend(name)

    @precondition(lambda self: self.night.sleepers)
    @rule(calls=st.integers(1, 12))
    def a_sleeper_wakes(self, calls: int) -> None:
        self.night.wake(calls)

    @rule(device=st.sampled_from(DEVICES))
    def a_lease_ends(self, device: str) -> None:
        self.night.expire(device)

    @rule()
    def a_person_commits(self) -> None:
        self.night.commit_by_hand()

    @precondition(lambda self: not self.server_killed)
    @rule(really=st.integers(0, 7))
    def the_server_is_killed(self, really: int) -> None:
        if really == 7:
            self.server_killed = True
            self.site.kill_server()

    def teardown(self) -> None:
        """The next morning nothing is lost and nothing doubled."""
        if hasattr(self, "night"):
            self.night.end()
            self.night.settle()
            assert self.night.complaints() == []


def run_schedules(folder: Path, number: int, luck: int) -> None:
    """Raises whatever the first schedule that goes wrong raises, made as short as it can be."""
    site = Site(folder)
    try:
        run_state_machine_as_test(
            seed(luck)(type("Machine", (Schedule,), {"site": site})),
            settings=settings(
                max_examples=number,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        site.close()


def test_no_schedule_loses_or_doubles_anything() -> None:
    with tempfile.TemporaryDirectory(prefix="ar-", dir=MEMORY) as folder:
        run_schedules(Path(folder) / "0", SCHEDULES, 0)
