"""One measurement: train in one container, score in another, tell what came of it."""

import hashlib
import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import failpoint
from data.files import hash_file
from records import (
    SOURCE_LIMIT_BYTES,
    Audit,
    CurvePoint,
    Failure,
    FailureKind,
    GpuReading,
    Hashes,
    Measurement,
    Progress,
    Refusal,
)
from sandbox.audit import Text, total
from sandbox.dataset import Dataset, Rows
from sandbox.device import Device
from sandbox.engines import Container, Engine
from sandbox.failure import LOG_CHARS, Ending, EngineLost, Faulted, clean, fail
from sandbox.gate import Gate
from sandbox.gpu import GpuDirty, left_empty
from sandbox.launch import launched, with_outbox
from sandbox.outbox import Outbox
from sandbox.oversee import Timing, Training
from sandbox.profile import LaunchProfile, Limits, Mount, lab_id, reserved_uid
from sandbox.receipt import Key
from sandbox.respondent import Respondent
from sandbox.rundir import readable_folder, run_directory, write_readable
from sandbox.score import INSIDE, Caught, Exam, Rigour, Score, batch_rows, scorer_sha256
from sandbox.watch import Disturbed, Watch, complaint
from sandbox.weights import count_parameters

PREPARE = Path(__file__).parents[1] / "prepare.py"
WEIGHTS = "model.safetensors"
KERNELS = "kernels.tar"
KERNELS_BYTES = 512 * 2**20
"""Largest file of kernels: unpacked, it takes so much of a successor's /tmp."""
PREVIEW_NATS = 0.01
MTIME_S = 1.0
"""How exactly every engine knows when a file was written."""
CURVE_POINTS = 32


class EarlyStop(NamedTuple):
    """When to end a run that cannot come to anything, and how often not to, so that it is known how often that is wrong."""

    why: Callable[[Sequence[Progress]], str | None]
    """Told all that a candidate has reported, oldest first, says why it is hopeless; None while it is not."""
    control: float
    """Share of the runs to be stopped that are allowed to finish. Whether one is, nobody knows before."""


@dataclass
class Notes:
    """What a run has come to so far: a failed one tells it too."""

    timing: Timing = field(default_factory=Timing)
    kernels_sha256: str | None = None
    training: Ending | None = None
    gpu: GpuReading | None = None
    stolen_cpu: float | None = None
    flagged: str | None = None
    scoring: Ending | None = None
    score_s: float | None = None
    claim_s: float | None = None
    audit: Audit | None = None
    parameters: int | None = None
    score: Score | None = None


def measure(
    source: str,
    dataset: Dataset,
    engine: Engine,
    *,
    budget_s: float,
    seed: int,
    device: Device,
    limits: Limits | None = None,
    rigour: Rigour | None = None,
    kernels: Path | None = None,
    ledger_weakness: str | None = None,
    full_audit: Callable[[float], bool] = lambda _: False,
    early_stop: EarlyStop | None = None,
    unseal: Callable[[str], None] | None = None,
    run_id: str | None = None,
    state_dir: Path,
    on_phase: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    cancel: threading.Event | None = None,
) -> Measurement:
    """Train and score one untrusted train.py. Failures, the host's included, come back in the measurement, signed.

    Args:
        source: text of the train.py.
        dataset: verified dataset; the candidate sees its training split, the scorer its validation split.
        engine: what runs the containers.
        budget_s: seconds of training, by the host's clock.
        seed: seed of the run; the order of the data follows from it.
        device: the CPU or a GPU that the caller holds alone.
        limits: what the candidate may use.
        rigour: how strictly its claims are audited.
        kernels: what was compiled beforehand (see sandbox/kernels.py).
        ledger_weakness: for the receipt: how the ledger that it goes to could lose it.
        full_audit: told the bits per byte that were claimed, says whether to audit as a merge requires.
        early_stop: when to end it before its time; never when None.
        unseal: score on the sealed test split instead, after telling this so (see Dataset.unsealed).
        run_id: names the run's directory and containers; drawn when None.
        state_dir: the lab's state directory.
        on_phase: told `starting`, `training`, `scoring`, `auditing`.
        on_progress: told what the candidate reports, a few times a second.
        cancel: when set, the run ends at once as a host error `cancelled`.

    Raises:
        BadInput: the lab's key cannot be used (see sandbox/receipt.py).
    """
    key = Key.of(state_dir)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    run_id = run_id or secrets.token_hex(8)
    notes = Notes()
    job = Job(source.encode(errors="replace"), dataset, engine, budget_s, seed, device, limits or Limits.of(), run_id, state_dir, cancel or threading.Event(), rigour or Rigour(), kernels)  # fmt: skip
    failure: Failure | None = None
    failpoint.reach("measure.begun")
    try:
        job.run(notes, full_audit, early_stop, unseal, on_phase, on_progress)
    except Faulted as fault:
        failure = fault.failure
    except EngineLost as error:
        failure = fail(FailureKind.ENGINE_LOST, str(error))
    except GpuDirty as error:
        failure = fail(FailureKind.GPU_DIRTY, str(error))
    except Disturbed as error:
        failure = fail(FailureKind.DISTURBED, str(error))
    except (Refusal, OSError) as error:
        failure = fail(FailureKind.HOST_ERROR, str(error))
    ending = notes.scoring or notes.training
    score = notes.score if failure is None else None
    measurement = Measurement(
        run_id=run_id,
        status="ok" if failure is None else failure.kind.value,
        val_bpb=None if score is None else score.bpb,
        std_error_bpb=None if score is None else score.std_error_bpb,
        split="val" if unseal is None else "test",
        val_tokens=None if score is None else score.tokens,
        val_bytes=None if score is None else score.bytes,
        budget_s=budget_s,
        startup_seconds=notes.timing.startup_s,
        train_seconds=notes.timing.train_s,
        score_seconds=notes.score_s,
        claim_seconds=notes.claim_s,
        audit=notes.audit,
        num_steps=notes.timing.steps,
        num_tokens=notes.timing.tokens,
        epochs=None if notes.timing.tokens is None else round(notes.timing.tokens / dataset.train_tokens, 4),
        num_params=notes.parameters,
        peak_memory_mb=None if notes.training is None else _mebibytes(notes.training.peak_memory_bytes),
        seed=seed,
        data_seed=job.data_seed,
        engine=engine.name,
        engine_version=engine.version,
        device=device.id,
        device_name=device.name,
        gpu=notes.gpu,
        stolen_cpu=notes.stolen_cpu,
        curve=thinned(notes.timing.reports),
        flagged=notes.flagged,
        cpus=job.limits.cpus,
        memory_limit_mb=_mebibytes(job.limits.memory_bytes),
        exit_code=None if ending is None else ending.exit_code,
        failure=failure,
        hashes=job.hashes(),
        ledger_weakness=ledger_weakness,
        kernels_sha256=notes.kernels_sha256,
        started_at=started_at,
        log_tail="" if ending is None else clean(ending.log, LOG_CHARS),
    )
    signed = key.sign(measurement)
    failpoint.reach("measure.signed")
    return signed


def preview(
    source: str,
    dataset: Dataset,
    engine: Engine,
    *,
    rows: int,
    cuts: int,
    device: Device,
    limits: Limits | None = None,
    state_dir: Path,
    cancel: threading.Event | None = None,
) -> Audit:
    """Audit an untrained train.py on training text, for its author: no clock, no score, no secret.

    Args:
        source: text of the train.py.
        dataset: verified dataset; only its training split is used.
        engine: what runs the containers.
        rows: of the training split that it is asked about.
        cuts: draws.
        device: what it runs on.
        limits: what it may use.
        state_dir: the lab's state directory.
        cancel: ends the audit early when set.

    Raises:
        Faulted: it would not be scored; the message says why, and of a leak where it is and how far it looks ahead.
    """
    run_id = f"audit-{secrets.token_hex(6)}"
    # A CPU computes the same numbers again, so there also a leak shows that moves a loss by little.
    rigour = Rigour(screen_cuts=cuts) if device.gpu else Rigour(screen_cuts=cuts, tolerance_nats=PREVIEW_NATS)
    job = Job(source.encode(errors="replace"), dataset, engine, dataset.budget_s, 0, device, limits or Limits.of(), run_id, state_dir, cancel or threading.Event(), rigour)  # fmt: skip
    with run_directory(state_dir, run_id) as folder:
        readable_folder(folder / "weights")
        text = dataset.rows("train")[:rows]
        return job.score(folder, Notes(), text, lambda _: False, lambda _: None, preview=True).audit


def _mebibytes(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else round(size_bytes / 2**20, 1)


class Workplace(NamedTuple):
    profile: LaunchProfile
    gate_dir: Path
    data: Path
    """Empty; what appears in it, the container sees."""
    outbox: Outbox


class Scorer(NamedTuple):
    container: Container
    respondent: Respondent


@dataclass(frozen=True)
class Job:
    """What one measurement is about."""

    source: bytes
    dataset: Dataset
    engine: Engine
    budget_s: float
    seed: int
    device: Device
    limits: Limits
    run_id: str
    state_dir: Path
    cancel: threading.Event
    rigour: Rigour
    kernels: Path | None = None
    """See sandbox/kernels.py."""

    def run(
        self,
        notes: Notes,
        full_audit: Callable[[float], bool],
        early_stop: EarlyStop | None,
        unseal: Callable[[str], None] | None,
        on_phase: Callable[[str], None],
        on_progress: Callable[[Progress], None],
    ) -> None:
        with run_directory(self.state_dir, self.run_id) as folder:
            on_phase("starting")
            self.train(folder, notes, early_stop, on_phase, on_progress)
            on_phase("scoring")
            rows = self.dataset.rows("val") if unseal is None else self.dataset.unsealed(unseal)
            started = time.monotonic()
            try:
                notes.score = self.score(folder, notes, rows, full_audit, on_phase)
                notes.audit = notes.score.audit
                failpoint.reach("measure.audited")
            except Caught as caught:
                notes.audit = caught.audit
                raise
            finally:
                notes.score_s = time.monotonic() - started

    # ---- training ----------------------------------------------------------------------------------------------------

    def train(
        self,
        folder: Path,
        notes: Notes,
        early_stop: EarlyStop | None,
        on_phase: Callable[[str], None],
        on_progress: Callable[[Progress], None],
    ) -> None:
        """Train in a container; the weights are then in `folder`/weights, and look like weights."""
        if len(self.source) > SOURCE_LIMIT_BYTES:
            raise Faulted(
                FailureKind.INVALID, f"train.py has {len(self.source)} bytes, over the limit of {SOURCE_LIMIT_BYTES}"
            )
        weights = readable_folder(folder / "weights")
        notes.kernels_sha256 = None if self.kernels is None else hash_file(self.kernels)
        # Staged on the same file system, so that it appears at `go` by a rename, however large it is.
        staged = _link_or_copy(self.dataset.path / "train.bin", folder / "train.bin")
        failpoint.reach("measure.staged")
        with self.workplace(folder, "train") as place:
            with self.underway(place, notes) as training:
                failpoint.reach("measure.started")
                training.await_ready(self.limits.startup_cap_s(self.device))
                failpoint.reach("measure.ready")
                on_phase("training")
                staged.rename(place.data / "train.bin")

                def on_report(reports: Sequence[Progress]) -> None:
                    self.stop_early(early_stop, reports, notes)

                with self.undisturbed(place, training.container, notes):
                    training.await_weights(self.budget_s, self.limits.grace_s, self.data_seed, on_progress, on_report)
            failpoint.reach("measure.trained")
            written = place.outbox.collect(WEIGHTS, weights / WEIGHTS, self.limits.out_bytes)
        assert notes.timing.go is not None, "weights were waited for"
        # By the wall clock as it goes now: it may have been set since.
        if written < time.time() - (time.monotonic() - notes.timing.go) - MTIME_S:
            raise Faulted(
                FailureKind.INVALID, f"{WEIGHTS} was written before the clock started: it has learned nothing"
            )
        (weights / WEIGHTS).chmod(0o444)
        failpoint.reach("measure.collected")
        notes.parameters = count_parameters(weights / WEIGHTS)

    def compile(self, folder: Path) -> Path:
        """Start up and no more: the file with what the compiler made meanwhile, without having seen any data.

        Raises:
            Faulted: it did not come to start_clock(), or the file is not what it should be.
        """
        with self.workplace(folder, "compile", keep_kernels=True) as place:
            with self.underway(place, Notes()) as training:
                training.await_ready(self.limits.startup_cap_s(self.device))
            place.outbox.collect(KERNELS, folder / KERNELS, min(KERNELS_BYTES, self.limits.out_bytes))
        return folder / KERNELS

    @contextmanager
    def workplace(self, folder: Path, phase: str, **config: int) -> Iterator[Workplace]:
        """What a container needs that train.py starts up in: no data yet, and a place to write to."""
        lab, gate_dir, data = (readable_folder(folder / name) for name in ("lab", "gate", "data"))
        self.write_lab(lab, **config)
        mounts = [Mount(lab, "/lab"), Mount(gate_dir, "/gate"), Mount(data, "/data")]
        if self.kernels is not None:
            cache = readable_folder(folder / "cache")
            _link_or_copy(self.kernels, cache / KERNELS)
            mounts.append(Mount(cache, "/cache"))
        with (
            self.profile(phase, "train.py", self.limits, *mounts) as plain,
            with_outbox(self.engine, plain, folder) as (profile, outbox),
        ):
            yield Workplace(profile, gate_dir, data, outbox)

    @contextmanager
    def underway(self, place: Workplace, notes: Notes) -> Iterator[Training]:
        """A container that has started; nothing of it is left after the block, and nothing on the GPU."""
        with (
            Gate(place.gate_dir) as gate,
            left_empty(self.device, self.limits.gpu_empty_s),
            launched(self.engine, place.profile) as container,
        ):
            try:
                yield Training(container, gate, self.cancel, notes.timing)
            finally:
                container.kill()
                notes.training = container.ending()

    @contextmanager
    def undisturbed(self, place: Workplace, container: Container, notes: Notes) -> Iterator[None]:
        """The candidate trains in the block, alone and at full speed.

        Raises:
            Disturbed: it was not so; also when the candidate failed meanwhile, since that may be why.
        """
        watch = Watch(self.device, container, place.profile.cpuset or (), self.budget_s)
        fault: Faulted | None = None
        try:
            yield
        except Faulted as ended:
            fault = ended
        finally:
            watch.close()
            notes.gpu, notes.stolen_cpu = watch.reading(), watch.stolen_cpu
        on_gpu, limit = self.device.gpu is not None, self.limits.stolen_cpu
        why = complaint(notes.gpu, notes.stolen_cpu, on_gpu=on_gpu, limit=limit)
        if why is not None:
            raise Disturbed(why if fault is None else f"{why}; it ended so: {fault}")
        if fault is not None:
            raise fault

    @staticmethod
    def stop_early(early_stop: EarlyStop | None, reports: Sequence[Progress], notes: Notes) -> None:
        """Raises Faulted (hopeless) if the run is to end now; one that is flagged and may go on is not asked about again."""
        if early_stop is None or notes.flagged is not None:
            return
        why = early_stop.why(reports)
        if why is None:
            return
        if secrets.SystemRandom().random() >= early_stop.control:
            raise Faulted(FailureKind.HOPELESS, why)
        notes.flagged = why

    @property
    def data_seed(self) -> int:
        """Seed of the order of the data: known to the candidate at `go`, not before."""
        return int.from_bytes(hashlib.sha256(f"data order {self.seed}".encode()).digest()[:4], "big") // 2

    # ---- scoring -----------------------------------------------------------------------------------------------------

    def score(
        self,
        folder: Path,
        notes: Notes,
        rows: Rows,
        full_audit: Callable[[float], bool],
        on_phase: Callable[[str], None],
        preview: bool = False,
    ) -> Score:
        """Score the model on some rows, in fresh containers that hold no data.

        Args:
            folder: the run's directory; weights lie in its `weights`.
            notes: is told how long the claims took.
            rows: tokens, [N, T + 1].
            full_audit: as in `measure`.
            on_phase: as in `measure`.
            preview: for its author: with random weights instead of trained ones, and a mismatch is looked into.
        """
        dataset = self.dataset
        for phase in ("claim", "audit"):
            self.equip(folder, phase, rows, scrambled=preview)
        text, size = Text(rows, dataset.token_bytes()), batch_rows(dataset.max_seq_len, dataset.vocab_size, self.device)
        exam = Exam(text, dataset.rows("train"), size, self.rigour)
        started = time.monotonic()
        # Both start now: importing torch takes seconds, and nothing of the candidate's is imported before its turn.
        with self.scorer(folder, "audit") as auditor:
            with self.scorer(folder, "claim") as claimer, self.at_work(claimer, notes) as respondent:
                claims = exam.collect_claims(respondent)
            notes.claim_s = time.monotonic() - started
            failpoint.reach("measure.claimed")
            on_phase("auditing")
            plan = exam.plan(claims, full_audit(text.bits_per_byte(total(claims, text))))
            dropped = plan.full and forget_files()
            with self.at_work(auditor, notes, passes=plan.cuts / len(rows)) as respondent:
                try:
                    return exam.audit(respondent, claims, plan, dropped)
                except Caught as caught:
                    raise exam.look_into(caught, respondent) if preview else caught from None

    def equip(self, folder: Path, phase: str, rows: Rows, scrambled: bool = False) -> None:
        """What a scorer of that phase is given. Each its own files: what one process does to the kernel's cache of a file, another
        could notice."""
        lab = readable_folder(folder / f"lab-{phase}")
        self.write_lab(lab, token_bytes=rows.itemsize, scrambled=scrambled)
        write_readable(lab / "score.py", INSIDE.read_bytes())
        shutil.copytree(folder / "weights", folder / f"weights-{phase}")

    @contextmanager
    def scorer(self, folder: Path, phase: str) -> Iterator[Scorer]:
        """A container that was equipped and waits to be asked; nothing of the candidate's runs in it yet."""
        gate_dir = readable_folder(folder / f"gate-{phase}")
        lab, weights = folder / f"lab-{phase}", folder / f"weights-{phase}"
        mounts = (Mount(lab, "/lab"), Mount(weights, "/weights"), Mount(gate_dir, "/gate"))
        with (
            self.profile(phase, "score.py", self.limits, *mounts) as profile,
            Respondent(gate_dir, self.cancel) as respondent,
            launched(self.engine, profile) as container,
        ):
            yield Scorer(container, respondent)

    @contextmanager
    def at_work(self, scorer: Scorer, notes: Notes, passes: float = 1.0) -> Iterator[Respondent]:
        """The candidate's code runs from here to the end of the block, and nothing is left of it then.

        Args:
            passes: over the split, that it is asked for.
        """
        with left_empty(self.device, self.limits.gpu_empty_s):
            try:
                limits = self.limits
                scorer.respondent.begin(scorer.container, limits.import_s, limits.score_s * max(1.0, passes))
                yield scorer.respondent
            except Faulted:
                scorer.container.kill()
                notes.scoring = scorer.container.ending()
                raise
            finally:
                scorer.container.kill()

    # ---- what both containers get ------------------------------------------------------------------------------------

    def write_lab(self, lab: Path, **more: int) -> None:
        config = {
            "max_seq_len": self.dataset.max_seq_len,
            "vocab_size": self.dataset.vocab_size,
            "budget_s": self.budget_s,
            "seed": self.seed,
            "device": self.device.torch_name,
            "profile": dict(self.dataset.profile),
            **more,
        }
        write_readable(lab / "train.py", self.source)
        write_readable(lab / "prepare.py", PREPARE.read_bytes())
        write_readable(lab / "config.json", json.dumps(config).encode())

    @contextmanager
    def profile(self, phase: str, program: str, limits: Limits, *mounts: Mount) -> Iterator[LaunchProfile]:
        """The profile of a phase, whose user is this run's alone for as long as the block runs."""
        arguments = ("-B", "-s", f"/lab/{program}")
        with reserved_uid() as uid:
            yield LaunchProfile(lab_id(self.state_dir), self.run_id, phase, uid, arguments, mounts, self.device, limits)

    def hashes(self) -> Hashes:
        return Hashes(
            source=hashlib.sha256(self.source).hexdigest(),
            prepare=hash_file(PREPARE),
            image=self.engine.image_hash,
            dataset=self.dataset.sha256,
            tokenizer=self.dataset.tokenizer_sha256,
            scorer=scorer_sha256(),
        )


def thinned(reports: Sequence[Progress]) -> list[CurvePoint]:
    """At most CURVE_POINTS of the reports, evenly spread over them, the first and the last included."""
    count = min(len(reports), CURVE_POINTS)
    chosen = [reports[round(i * (len(reports) - 1) / max(1, count - 1))] for i in range(count)]
    return [CurvePoint(elapsed_s=round(r.elapsed_s, 3), tokens=r.tokens, loss=r.loss) for r in chosen]


def forget_files() -> bool:
    """Empty the kernel's cache of files and names, through which a process could leave word for a later one; if we may."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def _link_or_copy(source: Path, target: Path) -> Path:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
        target.chmod(0o444)
    return target
