"""Whole campaigns of real processes over a real Redis and a real repository, to be killed, stopped and brought to their end.

Launcher, seats, ledger, relay and git are those of a night. Two things are stood in for, so that a campaign takes seconds: Ray by
forked processes, and the containers by a measurement that follows from the experiment's number.
"""

import itertools
import json
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import redis
from rich.console import Console

import failpoint
import orgs.launch
import orgs.pipeline
import orgs.runner
import orgs.seats
from ledger import Ledger, Quarantined, scripts
from ledger.lease import hold, lift_quarantine, quarantines
from ledger.server import SOCKET, join, open_redis
from ledger.users import Users, login
from ledger.verdict import Need
from orgs.lab import Lab
from orgs.launch import launch, newest
from orgs.orgfile import OrgFile, SandboxSettings
from orgs.pipeline import Chair, Pipeline
from orgs.runner import Runner
from orgs.seats import Seat, Site
from records import BadInput, Event, Experiment, FailureKind, Measurement, Refusal
from sandbox.receipt import Key
from tests.ledger.repository import Repository
from tests.ledger.samples import failed, scored
from tests.orgs.lab import make_lab

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.faults.campaign"])
EXPERIMENTS = 3
TTL_S = 1.5
SPARES = 15
LIVES = 8
PATIENCE_S = 800.0
"""A hang is noticed after this long; a busy machine is not taken for one."""
Orders = dict[str, str]
"""Failpoints, as the environment variable has them, by the process that they are meant for."""


# ---- the containers' stand-in ----------------------------------------------------------------------------------------


class StandInEngine:
    """An engine that runs nothing."""

    name = "runc"

    def leftovers(self) -> list[Any]:
        return []


LOWER = 'rule = "keep-if-lower"\n'
MERGE = """rule = "two-run-min"
noise_runs = 4
champion_runs = 2
canary_every = 2
"""
"""In place of it, in the org file: what needs second runs, repeats and canaries, as few of them as there can be."""


def worth(experiment: Experiment, rows: list[Experiment]) -> float:
    """Bits per byte of its program: of ideas, each second one is worse than the start, the others are better than all before."""
    if not experiment.is_idea:
        assert experiment.candidate is not None
        made = [row for row in rows if row.is_idea and row.commit == experiment.candidate.parent]
        return worth(made[0], rows) if made else 2.5
    number = sum(row.is_idea and row.id <= experiment.id for row in rows)
    return 2.0 - number / 10 if number % 2 else 3.0


def noise(experiment: Experiment) -> float:
    """What a run differs by."""
    return (7 * experiment.id + 3 * len(experiment.measurements)) % 5 / 1000


class StandInRunner(Runner):
    """Records under which fence it measured, in the run's name."""

    def run(self, experiment: Experiment, kernels: Path | None) -> Measurement:
        assert experiment.candidate is not None
        self.ledger.progress(experiment.id, self.keeper.lease, "training", None)
        time.sleep(0.05)
        run_id = f"{experiment.id}-{os.getpid()}-{time.monotonic_ns()}-fence{self.keeper.lease.fence}"
        source, dirty = experiment.candidate.source, "runner.quarantined" in failpoint.ARMED
        rows = self.ledger.experiments()
        drifted = drifting(self.state_dir.parent).exists() and any(
            row.hypothesis.category == Need.CANARY for row in rows
        )
        if dirty and not experiment.measurements and experiment.lane == "baseline":
            return Key.of(self.state_dir).sign(failed(source, FailureKind.GPU_DIRTY, run_id))
        score = worth(experiment, rows) + noise(experiment) + (0.2 if drifted else 0.0)
        return Key.of(self.state_dir).sign(scored(source, score, run_id))


def drifting(lab: Path) -> Path:
    """A file with which a lab's machine is another one as soon as somebody looks whether it is."""
    return lab / "drifting"


def lift_all(client: redis.Redis) -> list[str]:
    """Nothing uses the device any more."""
    lifted = list(quarantines(client))
    for device in lifted:
        lift_quarantine(client, device)
    return lifted


# ---- Ray's stand-in --------------------------------------------------------------------------------------------------


class Spares:
    """Processes that wait for a seat, made while their parent had no threads that a fork could cut off."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Connection]] = []
        for _ in range(SPARES):
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                ours.close()
                for _, other in self.waiting:
                    other.close()
                serve(Connection(theirs.detach()))
            theirs.close()
            self.waiting.append((pid, Connection(ours.detach())))

    def take(self, role: str, site: Site, orders: str) -> "Actor":
        pid, line = self.waiting.pop(0)
        line.send((role, site, orders))
        return Actor(pid, line)


class Actor:
    """A seat in a process of its own."""

    def __init__(self, pid: int, line: Connection):
        self.pid = pid
        self.line = line


def serve(line: Connection) -> None:
    """Life of an actor. It does not outlive its launcher by more than the step that it is at."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        role, site, orders = line.recv()
        failpoint.arm(orders)
        seat = Seat(role, site)
        while True:
            line.send(answer(seat.step if line.recv() == "step" else seat.close))
    os._exit(0)


def answer(do: Callable[[], bool | None]) -> tuple[str, Any]:
    try:
        return "done", do()
    except (BadInput, Quarantined) as error:
        return "mending", str(error)
    except Exception as error:
        return "failed", "".join(traceback.format_exception_only(error)).strip()


class ProcessPipeline(Pipeline):
    """The pipeline, with processes in place of Ray's actors."""

    def __init__(self, spares: Spares, orders: Orders, say: Callable[[str], None]):
        super().__init__(say)
        self.spares = spares
        self.orders = orders

    def add(self, role: str, site: Site, count: int = 1) -> None:
        self.site = site
        self.chairs += [Chair(role, name, self.seat(role, name)) for name in (f"{role}-{i}" for i in range(count))]

    def seat(self, role: str, name: str) -> Actor:
        return self.spares.take(role, replace(self.site.of(role), seat=name), self.orders.get(role, ""))

    def advance(self, may_step: Callable[[str], bool], timeout_s: float = 0.1) -> None:
        for chair in [chair for chair in self.chairs if chair not in self.pending.values()]:
            if chair.ready_at <= time.monotonic() and may_step(chair.role):
                with suppress(OSError):  # it has died meanwhile, and its line says so
                    chair.actor.line.send("step")
                self.pending[chair.actor.line] = chair
        if not self.pending:
            time.sleep(0.02)
        for line in wait(list(self.pending), timeout_s):
            self.settle(self.pending.pop(line), line)

    def settle(self, chair: Chair, reference: Any) -> None:
        try:
            kind, said = reference.recv()
        except (EOFError, OSError):
            os.waitpid(chair.actor.pid, 0)
            chair.actor = self.seat(chair.role, chair.name)
            self.count_failure(chair, "its process died and is restarted")
            return
        if kind == "mending":
            self.await_mending(chair, said)
        elif kind == "failed":
            self.count_failure(chair, said)
        else:
            chair.failures = 0
            chair.ready_at = 0.0 if said else time.monotonic() + orgs.pipeline.IDLE_S

    def close(self) -> None:
        for chair in self.chairs:
            if chair not in self.pending.values():
                with suppress(OSError, EOFError):
                    chair.actor.line.send("close")
                    if chair.actor.line.poll(orgs.pipeline.CLOSE_TIMEOUT_S):
                        chair.actor.line.recv()
        for chair in self.chairs:
            with suppress(ProcessLookupError):
                os.kill(chair.actor.pid, signal.SIGKILL)


# ---- a launcher ------------------------------------------------------------------------------------------------------


def play(lab: Path, orders: Orders, real: bool, jumpy: bool) -> None:
    """Life of a launcher: exits with the code that the command line would."""
    log = (lab / "launch.log").open("a", buffering=1)
    failpoint.arm("")  # not what the test process was started with
    stand_in(lab, real)
    if jumpy:
        jump()
    spares = Spares()
    failpoint.arm(orders.get("launcher", ""))
    modules()[2].Pipeline = partial(ProcessPipeline, spares, orders)
    try:
        ended = launch(
            Lab.open(lab), lab / "orgs" / "tiny.toml", redis_url=None, console=Console(file=log, width=200), pick=pick
        )
        code = 0 if ended.finished else 130
    except Refusal as refusal:
        log.write(f"{type(refusal).__name__}: {refusal}\n")
        code = refusal.exit_code
    except redis.RedisError as error:
        log.write(f"Redis stopped answering: {error}\n")
        code = 4
    except BaseException:
        traceback.print_exc(file=log)
        code = 1
    log.close()
    os._exit(code)


def modules() -> tuple[Any, Any, Any]:
    return orgs.launch, orgs.seats, orgs.pipeline


def pick(client: redis.Redis, org: OrgFile) -> str | None:
    """As `resume`, or as `launch` where nothing was begun."""
    return newest(client, org) if Ledger.campaigns(client) else None


def stand_in(lab: Path, real: bool) -> None:
    """In this process and those forked from it: no Ray, no containers, short leases, and a note of what Redis acknowledged."""
    launching, seats, pausing = modules()
    launching.ray_session = partial(nullcontext, "none")
    if not real:
        seats.Runner, seats.lift_quarantines = StandInRunner, lift_all
        settings: Any = SandboxSettings
        settings.ready_engine = lambda *_: StandInEngine()
    seats.LEASE_TTL_S, launching.hold = TTL_S, partial(hold, ttl_s=TTL_S)
    pausing.IDLE_S = pausing.FAILURE_PAUSE_S = pausing.MENDING_PAUSE_S = 0.1
    run = scripts.run

    def acknowledged(client: redis.Redis, name: str, *args: str | int | float) -> Any:
        answer = run(client, name, *args)
        if name in ("record", "merged", "discard", "confirm", "pool"):
            with (lab / "acknowledged").open("a") as file:
                file.write(json.dumps([name, *args]) + "\n")
        return answer

    scripts.run = acknowledged


def jump() -> None:
    """From now on the wall clock of this process, and of those forked from it, is a day ahead and a day behind in turns."""
    real, turns = time.time, itertools.cycle((86_400.0, -86_400.0))
    time.time = lambda: real() + next(turns)


# ---- the test's side -------------------------------------------------------------------------------------------------


class Campaign:
    """A lab, and the launches that it takes to bring its one campaign to its end."""

    def __init__(self, root: Path):
        self.root = root
        self.marks = root / "marks"
        self.marks.mkdir()
        self.orders: Orders = {}
        self.experiments = EXPERIMENTS
        self.real = False
        """Measure in containers."""
        self.jumpy = False
        """Have every process's wall clock jump."""
        self.codes: list[int] = []
        self.seen: list[Event] = []
        """Events that a reader of the ledger has seen; what was seen must stay."""
        self.launchers: list[BaseProcess] = []

    def mark(self, name: str) -> Path:
        return self.marks / name

    def order(self, process: str, text: str, mark: str = "reached") -> Path:
        """Have a process reach a failpoint once. Returns the file that then exists."""
        before = self.orders.get(process, "")
        self.orders[process] = ",".join(filter(None, [before, f"{text}:once={self.mark(mark)}"]))
        return self.mark(mark)

    def start(self) -> BaseProcess:
        launcher = FORK.Process(target=play, args=(self.root, dict(self.orders), self.real, self.jumpy))
        launcher.start()
        self.launchers.append(launcher)
        return launcher

    def end(self, launcher: BaseProcess | None = None, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait for a launcher, and launch again until the campaign is over."""
        deadline = time.monotonic() + PATIENCE_S
        for _ in range(LIVES):
            code = self.code_of(launcher or self.start(), deadline, meanwhile)
            self.codes.append(code)
            if code == 0 or self.over():
                return
            launcher = None
        raise AssertionError(f"not over after {LIVES} launches, which ended {self.codes}:\n{self.log()}")

    def code_of(self, launcher: BaseProcess, deadline: float, meanwhile: Callable[[], None]) -> int:
        self.wait_for(lambda: launcher.exitcode is not None, "the launcher to end", deadline, meanwhile)
        assert launcher.exitcode is not None
        return launcher.exitcode

    def wait_for(
        self,
        condition: Callable[[], bool],
        what: str,
        deadline: float | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Watch the ledger until the condition holds."""
        deadline = deadline or time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}; launches ended {self.codes}:\n{self.log()}"
            self.look()
            meanwhile()
            time.sleep(0.1)

    def look(self) -> None:
        """Read what is new in the history, if Redis answers."""
        folder = self.root / ".autoresearch" / "redis"
        if not (folder / "users.json").exists():
            return
        url = login(f"unix://{folder / SOCKET}", "reader", Users.of(folder).passwords["reader"])
        with suppress(redis.RedisError), join(url) as client:
            for name in Ledger.campaigns(client):
                self.seen += Ledger(client, name).events(after=self.seen[-1].id if self.seen else 0)

    def over(self) -> bool:
        with self.opened() as ledger:
            return ledger is not None and ledger.stop_reason() is not None

    @contextmanager
    def opened(self) -> Iterator[Ledger | None]:
        with open_redis(self.root / ".autoresearch") as server:
            names = Ledger.campaigns(server.client)
            assert len(names) <= 1
            yield Ledger(server.client, names[0]) if names else None

    def commit_by_hand(self) -> None:
        """Somebody else's commit on the campaign's branch."""
        repository = Repository.at(self.root)
        branch = repository.git("for-each-ref", "--format=%(refname:short)", "refs/heads/autoresearch/")
        repository.commit_on(branch, (self.root / "train.py").read_text() + "# by hand\n")

    def log(self) -> str:
        path = self.root / "launch.log"
        return path.read_text()[-4000:] if path.exists() else ""

    def close(self) -> None:
        """Nothing of it goes on running."""
        for launcher in self.launchers:
            if launcher.pid is not None and launcher.is_alive():
                launcher.kill()
                launcher.join()
        for mark in self.marks.iterdir():
            with suppress(psutil.NoSuchProcess):
                asleep = psutil.Process(int(mark.read_text()))
                if asleep.status() == psutil.STATUS_STOPPED and "forkserver" in " ".join(asleep.cmdline()):
                    asleep.kill()
        with open_redis(self.root / ".autoresearch"):
            pass  # who closes last shuts it down


def wake(mark: Path, with_signal: int = signal.SIGCONT) -> None:
    """Signal the process that made this mark when it was about to stop itself, once it has."""
    process = psutil.Process(int(mark.read_text()))
    deadline = time.monotonic() + 60
    while process.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, "it did not stop"
        time.sleep(0.01)
    process.send_signal(with_signal)


def make_template(root: Path) -> Path:
    lab = make_lab(root, experiments=EXPERIMENTS)
    org = lab / "orgs" / "tiny.toml"
    assert LOWER in org.read_text()
    org.write_text(org.read_text().replace(LOWER, MERGE))
    return lab


@contextmanager
def campaign_in(template: Path) -> Iterator[Campaign]:
    """A campaign in a copy of a lab, in a folder with a path short enough for a socket."""
    # In memory where possible: kill -9 loses nothing of it, and hundreds of fsyncs cost nothing.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="faults-", dir=memory, ignore_cleanup_errors=True) as folder:
        root = Path(folder) / "lab"
        shutil.copytree(template, root, symlinks=True)
        with (root / "train.py").open("a") as file:
            file.write("# edited since the last commit\n")
        campaign = Campaign(root)
        try:
            yield campaign
        finally:
            campaign.close()
