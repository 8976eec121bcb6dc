"""A runner whose GPU is not empty after a run puts it into quarantine, and nobody leases it until nothing uses it any more."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ledger import Ledger, Quarantined
from ledger.arbiter import Arbiter
from ledger.champion import Champion
from ledger.lease import Keeper, hold, quarantines
from ledger.relay import Relay, relay_lease
from ledger.server import open_redis
from ledger.standing import Court
from orgs.lab import Lab
from orgs.launch import begin
from orgs.orgfile import EarlyStopping, OrgFile
from orgs.runner import SCORE_S, Runner, bounded, lift_quarantines
from records import CurvePoint, FailureKind, Measurement, State
from sandbox.dataset import Dataset
from sandbox.device import Device, find_device
from sandbox.engines import Engine, cgroup
from sandbox.profile import Limits, lab_id, name_prefix
from sandbox.receipt import Key
from sandbox.score import Rigour
from tests.ledger.org import Org
from tests.ledger.samples import program, scored
from tests.orgs.lab import make_lab
from tests.sandbox.candidates import gate_probe
from tests.sandbox.recorded_gpu import UUID, Say, h100, recorded_gpu

LIMITS = Limits(
    cpus=1, memory_bytes=512 * 2**20, tmp_bytes=2**20, shm_bytes=2**20, out_bytes=2**20, gpu_empty_s=0.0, stolen_cpu=1.0
)


@pytest.fixture
def say(tmp_path: Path) -> Iterator[Say]:
    with recorded_gpu(tmp_path) as say:
        yield say


def runner_of(
    ledger: Ledger,
    champion: Champion,
    keeper: Keeper,
    engine: Engine,
    device: Device,
    dataset: Dataset,
    budget_s: float,
    state_dir: Path,
    **more: Any,
) -> Runner:
    """One that takes every receipt for good, and whose budget nobody spends."""
    court = Court(ledger, lambda _: None)
    return Runner(
        ledger, champion, keeper, engine, device, dataset, LIMITS, Rigour(), court, 100, budget_s, state_dir, **more
    )


def test_a_gpu_that_a_run_leaves_in_use_is_quarantined_and_the_run_is_queued_again(
    engine: Engine, state_dir: Path, say: Say, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lab = Lab.open(make_lab(tmp_path_factory.mktemp("lab")))
    org = OrgFile.load(lab.root / "orgs" / "tiny.toml", lab.root)
    dataset, device = Dataset.open(lab.dataset(org.data)), h100()
    with open_redis(lab.state) as server:
        ledger = Ledger(server.client, "tiny-1")
        begin(ledger, lab, org, dataset, device)
        champion = Champion(lab.root, "tiny-1")
        id = ledger.propose_baseline(program(gate_probe("start(); time.sleep(1.5)"), champion.head()))
        with hold(server.client, device.id) as keeper:
            runner = runner_of(ledger, champion, keeper, engine, device, dataset, 1.5, state_dir)
            intruder = threading.Thread(target=appear_while_training, args=(ledger, say))
            intruder.start()
            with pytest.raises(Quarantined, match="still used by python3"):
                runner.step()
            intruder.join()
        experiment = ledger.experiment(id)
        assert experiment.state == State.QUEUED
        assert [m.failure.kind for m in experiment.measurements if m.failure] == [FailureKind.GPU_DIRTY]
        assert list(quarantines(server.client)) == [UUID]
        assert lift_quarantines(server.client) == []
        with (
            pytest.raises(Quarantined, match=r"is in quarantine: GPU .* is still used by python3"),
            hold(server.client, UUID),
        ):
            pass
        say("idle")
        assert lift_quarantines(server.client) == [UUID]
        with hold(server.client, UUID):
            pass


def appear_while_training(ledger: Ledger, say: Say) -> None:
    """Somebody's process turns up on the GPU during the run."""
    deadline = time.monotonic() + 60
    while not any(run.phase == "training" for run in ledger.running()) and time.monotonic() < deadline:
        time.sleep(0.02)
    say("busy")


def appear_while_compiling(say: Say, state_dir: Path) -> None:
    """Somebody's process turns up on the GPU once the container has started."""
    deadline = time.monotonic() + 60
    while not any(trains(process, lab_id(state_dir)) for process in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    say("busy")


def trains(process: psutil.Process, lab: str) -> bool:
    """Whether it is a candidate in a container of this lab: others may run on this machine."""
    groups = cgroup.of_process(process.pid) if "/lab/train.py" in (process.info["cmdline"] or []) else []
    return any(group.name.startswith(name_prefix(lab)) for group in groups)


COMPILES = """
if json.load(open("/lab/config.json")).get("keep_kernels"):
    with open("/out/kernels.tar", "w") as file:
        file.write("of the champion NAME")
    time.sleep(1)
start()
"""


def test_a_champion_is_compiled_once_for_all_that_come_after_it(
    runc: Engine, state_dir: Path, say: Say, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = make_lab(tmp_path_factory.mktemp("lab"))
    (root / "train.py").write_text("LR = 0.5\n" + gate_probe(COMPILES))
    lab = Lab.open(root)
    org = OrgFile.load(root / "orgs" / "tiny.toml", root)
    dataset, device = Dataset.open(lab.dataset(org.data)), h100()
    with open_redis(lab.state) as server:
        ledger = Ledger(server.client, "tiny-1")
        begin(ledger, lab, org, dataset, device)
        champion = Champion(root, "tiny-1")
        with hold(server.client, device.id) as keeper:
            runner = runner_of(ledger, champion, keeper, runc, device, dataset, 1.5, state_dir, ledger_weakness="weak")
            assert runner.kernels(champion.head()) is None, "nothing is known to train yet"
            team, start = Org(ledger, keeper.lease), champion.head()
            team.baseline(1.0, start, champion.source(start))
            seal = Key(b"k" * 32).seal
            arbiter = Arbiter(ledger, champion, lambda _: None, seal)
            arbiter.step()
            first = runner.kernels(start)
            assert first is not None and first.read_text() == "of the champion NAME"
            id = team.queued(gate_probe("print(open('/cache/kernels.tar').read())"), start)
            assert runner.step()
            (measured,) = ledger.experiment(id).measurements
            assert measured.log_tail.strip() == "of the champion NAME" and measured.kernels_sha256 is not None
            assert measured.ledger_weakness == "weak"
            better = team.scored(gate_probe(COMPILES.replace("NAME", "after it")), 0.9, start)
            with hold(server.client, relay_lease("tiny-1")) as relay:
                while arbiter.step() or Relay(ledger, champion, relay, seal).step():
                    pass
            assert ledger.experiment(better).state == State.MERGED
            second = runner.kernels(champion.head())
            assert second is not None and second.read_text() == "of the champion after it"
            notes = [event.detail for event in ledger.events() if event.kind == "kernels"]
            assert [note.partition(":")[0] for note in notes] == [start[:9], champion.head()[:9]]
            runner.compiled.clear()
            second.unlink()
            intruder = threading.Thread(target=appear_while_compiling, args=(say, state_dir))
            intruder.start()
            with pytest.raises(Quarantined, match="still used by python3"):
                runner.step()
            intruder.join()
            assert list(quarantines(server.client)) == [UUID]


TELLS = """
start()
for i in range(30):
    say(type="progress", step=i, tokens=i, loss=LOSS)
    time.sleep(0.1)
raise SystemExit(3)
"""


def test_a_hopeless_run_is_stopped_only_when_the_org_says_so_and_never_by_what_a_champion_claims(
    runc: Engine, state_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lab = Lab.open(make_lab(tmp_path_factory.mktemp("lab")))
    org = OrgFile.load(lab.root / "orgs" / "tiny.toml", lab.root)
    dataset, device = Dataset.open(lab.dataset(org.data)), find_device("cpu")
    with open_redis(lab.state) as server:
        ledger = Ledger(server.client, "tiny-1")
        begin(ledger, lab, org, dataset, device)
        champion = Champion(lab.root, "tiny-1")

        def signed(losses: list[float]) -> Callable[[Measurement], Measurement]:
            points = [CurvePoint(elapsed_s=i, tokens=0, loss=loss) for i, loss in enumerate(losses)]
            return lambda measurement: measurement.model_copy(update={"curve": points})

        with hold(server.client, device.id) as keeper:
            team, start = Org(ledger, keeper.lease, signed([5.0, 3.0, 2.0, 2.0])), champion.head()
            team.baseline(1.0, start, champion.source(start))
            team.sign = signed([0.0, 0.0, 0.0, 0.0])
            liar = team.baseline(0.9, "e" * 40, "LR = 0.5\n")
            team.repeat(0.9, liar, "e" * 40, "LR = 0.5\n")
            assert [len(m.curve) for m in ledger.champion_score()] == [4, 4]

            def run(loss: float, early_stop: EarlyStopping) -> tuple[FailureKind, bool]:
                runner = runner_of(
                    ledger, champion, keeper, runc, device, dataset, 3.0, state_dir, early_stop=early_stop
                )
                id = team.queued(gate_probe(TELLS.replace("LOSS", str(loss))) + f"# {early_stop}", champion.head())
                assert runner.step()
                (measured,) = ledger.experiment(id).measurements
                assert measured.failure is not None and ledger.experiment(id).state == State.CRASHED
                return measured.failure.kind, measured.flagged is not None

            always = EarlyStopping(enabled=True, control=0.0)
            assert run(9.0, always) == (FailureKind.HOPELESS, False)
            assert run(2.1, always) == (FailureKind.CRASH, False), (
                "0.1 above the start, and far above what the champion claims"
            )
            assert run(9.0, EarlyStopping()) == (FailureKind.CRASH, False)
            assert run(9.0, EarlyStopping(enabled=True, control=1.0)) == (FailureKind.CRASH, True)


def test_scoring_may_take_a_few_times_what_the_champion_took_and_no_longer() -> None:
    assert bounded(LIMITS, []) == LIMITS
    champion = [scored("a", 1.0).model_copy(update={"claim_seconds": seconds}) for seconds in (None, 4.0, 5.0)]
    assert bounded(LIMITS, champion).score_s == SCORE_S + 3 * 5.0
    slow = [scored("a", 1.0).model_copy(update={"claim_seconds": 1e6})]
    assert bounded(LIMITS, slow).score_s == LIMITS.score_s
