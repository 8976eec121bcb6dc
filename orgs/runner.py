"""The runner: one device, one lease, one candidate at a time."""

import secrets
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import redis

import failpoint
from ledger import AlreadyRecorded, Ledger, Quarantined
from ledger.champion import Champion
from ledger.lease import Keeper, lift_quarantine, quarantine, quarantines
from ledger.standing import Court
from orgs.hopeless import Band, hopeless
from orgs.orgfile import EarlyStopping
from records import Experiment, FailureKind, Measurement, Progress, State
from sandbox.dataset import Dataset
from sandbox.device import Device
from sandbox.engines import Engine
from sandbox.gpu import GpuDirty, in_use, read_states
from sandbox.kernels import compile_kernels
from sandbox.measure import EarlyStop, measure
from sandbox.profile import Limits
from sandbox.score import Rigour

SLOWER = 3.0
"""Times the champion's pass over the split that a candidate may take …"""
SCORE_S = 30.0
"""… and seconds on top: a start may be slow on a busy machine."""


class Runner:
    """Takes the oldest reviewed candidate, measures it in the sandbox, records the result under its lease.

    Args:
        ledger: the campaign's ledger.
        champion: the campaign's branch; a candidate made from an older champion is sent back, not measured.
        keeper: holds and renews the lease of `device`; when the lease is lost the run is cancelled.
        engine: container engine.
        device: what the lease is for.
        dataset: verified dataset.
        limits: what a candidate may use.
        rigour: how strictly its claims are audited.
        court: knows what a candidate is compared with, so that a run that might count is audited as a merge requires.
        experiments: no more candidates than these are begun.
        budget_s: seconds of training.
        state_dir: where run directories are made.
        ledger_weakness: stamped on every receipt: how the ledger's Redis could lose it, if that was allowed.
        early_stop: when to end a run that cannot come to anything.
    """

    def __init__(
        self,
        ledger: Ledger,
        champion: Champion,
        keeper: Keeper,
        engine: Engine,
        device: Device,
        dataset: Dataset,
        limits: Limits,
        rigour: Rigour,
        court: Court,
        experiments: int,
        budget_s: float,
        state_dir: Path,
        ledger_weakness: str | None = None,
        early_stop: EarlyStopping = EarlyStopping(),  # noqa: B008 (frozen)
    ):
        self.ledger = ledger
        self.champion = champion
        self.keeper = keeper
        self.engine = engine
        self.device = device
        self.dataset = dataset
        self.limits = limits
        self.rigour = rigour
        self.court = court
        self.experiments = experiments
        self.budget_s = budget_s
        self.state_dir = state_dir
        self.ledger_weakness = ledger_weakness
        self.early_stop = early_stop
        self.compiled: dict[str, Path | None] = {}
        """Kernels of the champion at a commit."""

    def step(self) -> bool:
        """Run one experiment; False when none was waiting.

        Raises:
            LeaseLost: the lease ran out; whoever holds it now goes on.
            Quarantined: something of the run is still on the GPU. The run is queued again; nobody may use the GPU.
        """
        head = self.champion.head()
        kernels = self.kernels(head)
        new = self.ledger.spent().started < self.experiments
        experiment = self.ledger.take(self.keeper.lease, head, new=new)
        if experiment is None:
            return False
        failpoint.reach("runner.taken")
        measurement = self.run(experiment, kernels)
        failpoint.reach("runner.measured")
        left = what_is_left(measurement)
        if left is not None:  # said first: a successor must not take it for the usual state of the GPU
            quarantine(self.keeper.client, self.keeper.lease, left)
            failpoint.reach("runner.quarantined")
        with suppress(AlreadyRecorded):  # its answer was lost on the way
            self.ledger.record(experiment.id, self.keeper.lease, measurement)
        failpoint.reach("runner.recorded")
        if left is not None:
            raise Quarantined(left)
        return True

    def kernels(self, head: str) -> Path | None:
        """What the champion compiles, so that its successors need not: on a GPU, once a champion has been measured."""
        if self.device.gpu is None:
            return None
        made = self.compiled.get(head)
        if head not in self.compiled or (made is not None and not made.exists()):
            if not self.ledger.champion_score():
                return None
            source, started = self.champion.source(head), time.monotonic()
            try:
                made = compile_kernels(source, self.dataset, self.engine, device=self.device, limits=self.limits, state_dir=self.state_dir, cancel=self.keeper.lost)  # fmt: skip
            except GpuDirty as dirty:
                quarantine(self.keeper.client, self.keeper.lease, str(dirty))
                raise Quarantined(str(dirty)) from None
            self.compiled = {head: made}
            seconds = f"{time.monotonic() - started:.0f} s"
            self.ledger.note(
                "kernels", f"{head[:9]}: " + (f"compiled in {seconds}" if made else "none; it did not start up")
            )
        return made

    def run(self, experiment: Experiment, kernels: Path | None) -> Measurement:
        assert experiment.candidate is not None, "a queued experiment has a candidate"
        phase = "starting"

        def on_phase(name: str) -> None:
            nonlocal phase
            phase = name
            self.ledger.progress(experiment.id, self.keeper.lease, phase, None)

        def on_progress(progress: Progress) -> None:
            self.ledger.progress(experiment.id, self.keeper.lease, phase, progress)

        champion, standing = self.ledger.champion_score(), self.court.standing()

        champion = self.ledger.champion_score()

        def full_audit(claimed_bpb: float) -> bool:
            if not experiment.is_idea or standing is None or not standing.scores:
                return True
            like = standing.scores[-1].model_copy(update={"val_bpb": claimed_bpb})
            return standing.might_count(experiment, like)

        return measure(
            experiment.candidate.source,
            self.dataset,
            self.engine,
            budget_s=self.budget_s,
            seed=secrets.randbelow(2**31),
            device=self.device,
            limits=bounded(self.limits, champion),
            rigour=self.rigour,
            kernels=kernels,
            ledger_weakness=self.ledger_weakness,
            full_audit=full_audit,
            early_stop=self.early_stop_of(experiment, champion),
            run_id=f"{experiment.campaign}-{experiment.id}-{secrets.token_hex(4)}",
            state_dir=self.state_dir,
            on_phase=on_phase,
            on_progress=on_progress,
            cancel=self.keeper.lost,
        )

    def early_stop_of(self, experiment: Experiment, champion: list[Measurement]) -> EarlyStop | None:
        """When to end a run of this experiment: never one of a champion, since those say how far apart two runs may lie."""
        settings, budget_s = self.early_stop, self.budget_s
        if not settings.enabled or not experiment.is_idea:
            return None
        start = self.champion.landed_source_sha256(self.ledger.campaign().base)
        rows = self.ledger.experiments(states=[State.MERGED, State.POOLED])
        trusted = [m for row in rows for m in row.measurements if m.hashes.source == start]
        band = Band.of(champion, trusted, settings.after * budget_s)
        after, margin = settings.after, settings.margin
        return EarlyStop(
            lambda reports: hopeless(band, reports, budget_s=budget_s, after=after, margin=margin), settings.control
        )


def bounded(limits: Limits, champion: list[Measurement]) -> Limits:
    """The limits, with a cap on scoring that follows from what the champion took: nobody is to move training into scoring."""
    taken = [m.claim_seconds for m in champion if m.claim_seconds is not None]
    return replace(limits, score_s=min(limits.score_s, SCORE_S + SLOWER * max(taken))) if taken else limits


def what_is_left(measurement: Measurement) -> str | None:
    """What a run has left on its GPU, in words."""
    failure = measurement.failure
    return failure.message if failure is not None and failure.kind == FailureKind.GPU_DIRTY else None


def lift_quarantines(client: redis.Redis) -> list[str]:
    """Let go of the GPUs of this machine that were in quarantine and that nothing uses any more. Returns their UUIDs."""
    held = quarantines(client)
    lifted = [state.uuid for state in (read_states() if held else []) if state.uuid in held and in_use(state) is None]
    for uuid in lifted:
        lift_quarantine(client, uuid)
    return lifted
