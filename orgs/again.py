"""Measures a train.py again under the conditions that a receipt tells: for replays, and for the headline on the test split."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from data.files import hash_file
from orgs.lab import Lab
from records import BadInput, Measurement, MissingComponent, Refusal
from sandbox.dataset import Dataset
from sandbox.device import Device, find_device
from sandbox.engines import Engine
from sandbox.measure import PREPARE, measure
from sandbox.profile import Limits
from sandbox.ready import ready_engine
from sandbox.score import Rigour, scorer_sha256
from sandbox.sweep import sweep


class CandidateFailed(Refusal):
    """A candidate that had to succeed (the starting train.py, or one that is measured again) did not."""

    exit_code = 5


@dataclass(frozen=True)
class Conditions:
    """What a measurement was made with, found again on this machine."""

    lab: Lab
    dataset: Dataset
    device: Device
    engine: Engine
    limits: Limits
    budget_s: float
    rigour: Rigour
    """Of the audit."""
    ledger_weakness: str | None = None
    """For the receipts: how the ledger that they go to could lose them."""

    @classmethod
    def of(
        cls,
        receipt: Measurement,
        lab: Lab,
        *,
        engine: str | None,
        image: str | None,
        runtime: str | None,
        stolen_cpu: float,
    ) -> "Conditions":
        """Find them.

        Args:
            receipt: the measurement.
            lab: the clone.
            engine: in place of the receipt's.
            image: as in sandbox.ready.
            runtime: as in sandbox.ready.
            stolen_cpu: share of its CPU time that others may take.

        Raises:
            MissingComponent: the dataset, the device or the engine is not here.
        """
        dataset, device = dataset_of(lab, receipt.hashes.dataset), find_device(receipt.device)
        if receipt.device_name not in ("", device.name):
            raise MissingComponent(
                f"it was measured on {receipt.device_name}, and {device.name} does not compare with that"
            )
        found = ready_engine(
            engine or receipt.engine, device, state_dir=lab.state, image=image, runtime=runtime, strict=False
        )
        sweep([found], lab.state)
        memory_gb = None if receipt.memory_limit_mb is None else receipt.memory_limit_mb / 1024
        audit = receipt.audit
        rigour = Rigour(audit.tolerance_nats, audit.lie_bpb, audit.power) if audit is not None else Rigour()
        limits = Limits.of(receipt.cpus, memory_gb, stolen_cpu)
        return cls(lab, dataset, device, found, limits, receipt.budget_s, rigour, receipt.ledger_weakness)

    def differences(self, receipt: Measurement) -> list[str]:
        """What is not as it was, in words."""
        now = {
            "prepare.py": (receipt.hashes.prepare, file_sha256(PREPARE)),
            "the image (Python and its packages)": (receipt.hashes.image, self.engine.image_hash),
            "the scorer": (receipt.hashes.scorer, scorer_sha256()),
        }
        return [what for what, (then, here) in now.items() if then != here]

    def compare(self, receipt: Measurement) -> bool:
        """Whether a score of now compares with one of then."""
        same = (receipt.device_name, receipt.budget_s, receipt.cpus) == (
            self.device.name,
            self.budget_s,
            self.limits.cpus,
        )
        return same and receipt.hashes.dataset == self.dataset.sha256 and not self.differences(receipt)

    def measure(
        self,
        source: str,
        seed: int,
        run_id: str,
        *,
        on_phase: Callable[[str], None],
        unseal: Callable[[str], None] | None = None,
        full_audit: bool = False,
        cancel: threading.Event | None = None,
    ) -> Measurement:
        """One more run, see sandbox.measure. The caller holds the device's lease."""
        return measure(
            source,
            self.dataset,
            self.engine,
            budget_s=self.budget_s,
            seed=seed,
            device=self.device,
            limits=self.limits,
            rigour=self.rigour,
            ledger_weakness=self.ledger_weakness,
            full_audit=lambda _: full_audit,
            run_id=run_id,
            state_dir=self.lab.state,
            on_phase=on_phase,
            unseal=unseal,
            cancel=cancel,
        )


def dataset_of(lab: Lab, sha256: str) -> Dataset:
    """The lab's dataset with this hash. Raises MissingComponent if it has none."""
    for manifest in sorted(lab.state.glob("datasets/*/manifest.json")):
        if file_sha256(manifest) == sha256:
            return Dataset.open(manifest.parent)
    raise MissingComponent(f"no dataset below {lab.state / 'datasets'} has the hash {sha256[:12]} of the receipt")


def file_sha256(path: Path) -> str:
    """Raises BadInput if the file cannot be read."""
    try:
        return hash_file(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


@contextmanager
def cancelled_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the run can clean up after itself."""
    cancel = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        cancel.set()

    before = {sign: signal.signal(sign, stop) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
