"""An experiment of the ledger, measured again."""

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from redis import Redis
from rich.text import Text

from ledger.lease import hold
from ledger.noise import pool, reproduce
from orgs.again import CandidateFailed, Conditions
from orgs.cli.console import DISPROVED, err, out
from orgs.cli.opening import bench_of
from orgs.cli.options import (
    CampaignOption,
    ImageOption,
    JsonOption,
    LabOption,
    RedisOption,
    RuntimeOption,
    StolenOption,
)
from orgs.lab import Lab
from orgs.report import explain_reproduction, scores_by_source
from records import BadInput, Measurement
from sandbox.profile import STOLEN_CPU
from sandbox.receipt import Key

app = typer.Typer()


@app.command(epilog="Example: autoresearch-org ledger replay 3 --runs 2")
def replay(
    experiment: Annotated[int, typer.Argument(help="Id of the experiment.", metavar="ID")],
    runs: Annotated[int, typer.Option(help="Runs, all with the seeds of the receipt.", min=1)] = 1,
    anyway: Annotated[bool, typer.Option("--anyway", help="Go on although something is not as it was.")] = False,
    engine: Annotated[str | None, typer.Option(help="Container engine.", show_default="that of the receipt")] = None,
    image: ImageOption = None,
    runtime: RuntimeOption = None,
    stolen_cpu: StolenOption = STOLEN_CPU,
    campaign: CampaignOption = None,
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """Measure an experiment again from its receipt: same source, data, seeds, image. Does the score come out again?"""
    lab = Lab.open(lab_root)
    with bench_of(lab, redis, campaign) as (ledger, leases):
        found = ledger.experiment(experiment)
        receipt, candidate = found.score, found.candidate
        if receipt is None or candidate is None or receipt.val_bpb is None:
            raise BadInput(f"#{experiment} has no score to replay (it is {found.state})")
        if (complaint := Key.existing(lab.state).complaint(receipt)) is not None:
            raise BadInput(f"#{experiment}: the receipt does not count: {complaint}")
        if hashlib.sha256(candidate.source.encode()).hexdigest() != receipt.hashes.source:
            raise BadInput(f"#{experiment}: the ledger's source is not the one of the receipt")
        with err.status("checking the sandbox"):
            conditions = Conditions.of(receipt, lab, engine=engine, image=image, runtime=runtime, stolen_cpu=stolen_cpu)
        if (changed := conditions.differences(receipt)) and not anyway:
            raise BadInput(f"not as it was: {', '.join(changed)}; --anyway replays all the same")
        repeats = again(
            leases, conditions, [(f"replay of #{experiment}", candidate.source, receipt.seed)] * runs, unseal=None
        )
        scores = [bpb for m in repeats if (bpb := m.val_bpb) is not None]
        noise = pool([*scores_by_source(ledger.experiments()), scores])
        result = reproduce(receipt.val_bpb, scores, noise)
        words = explain_reproduction(result, noise)
        ledger.note("replay", f"#{experiment} by {len(scores)} runs: {words}")
    if as_json:
        print(json.dumps({**result._asdict(), "within_noise": result.within_noise, "changed": changed, "runs": [m.model_dump(mode="json") for m in repeats]}, indent=2))  # fmt: skip
    else:
        out.print(Text(f"#{experiment}: {receipt.val_bpb:.6f} bpb, {words}"), soft_wrap=True)
    if result.within_noise is False:
        raise typer.Exit(DISPROVED)


def again(
    leases: Redis,
    conditions: Conditions,
    jobs: Sequence[tuple[str, str, int]],
    unseal: Callable[[str], None] | None,
) -> list[Measurement]:
    """Measure (name, source, seed) one after the other under the device's lease.

    Raises:
        CandidateFailed: one did not come to a score.
    """
    measured: list[Measurement] = []
    with hold(leases, conditions.device.id), err.status("starting") as status:
        for i, (name, source, seed) in enumerate(jobs, 1):
            label = f"{name}, run {i} of {len(jobs)}"
            one = conditions.measure(
                source,
                seed,
                f"again-{secrets.token_hex(6)}",
                on_phase=lambda phase, label=label: status.update(f"{label}: {phase}"),  # type: ignore[misc]
                unseal=unseal,
            )
            if one.failure is not None:
                raise CandidateFailed(f"{label}: {one.failure.kind}: {one.failure.message}")
            measured.append(one)
    return measured
