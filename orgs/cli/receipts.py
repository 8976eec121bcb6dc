"""Signed measurements: print one, check one."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from orgs.cli.console import DISPROVED, EXIT_CODES, out
from orgs.cli.opening import ledger_of
from orgs.cli.options import CampaignOption, LabOption, RedisOption
from orgs.lab import Lab
from records import BadInput
from sandbox.receipt import Key, read_receipt

app = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES, help="Signed measurements: print one, check one.")


@app.command("show", epilog="Example: autoresearch-org receipt show 3 > receipt.json")
def show_receipt(
    experiment: Annotated[int, typer.Argument(help="Id of the experiment.", metavar="ID")],
    campaign: CampaignOption = None,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """Print the receipt of an experiment's last measurement, as `receipt verify` reads it."""
    with ledger_of(Lab.open(lab_root), redis, campaign) as ledger:
        measurements = ledger.experiment(experiment).measurements
    if not measurements:
        raise BadInput(f"#{experiment} was not measured yet")
    print(measurements[-1].model_dump_json(indent=2))


@app.command(epilog="Example: autoresearch-org receipt verify receipt.json")
def verify(
    path: Annotated[Path, typer.Argument(help="Receipt, as `run --json` or `receipt show` print it.", metavar="FILE")],
    lab_root: LabOption = Path(),
) -> None:
    """Check that a receipt is what this lab signed, to the last digit."""
    receipt = read_receipt(path)
    if (complaint := Key.existing(Lab.open(lab_root).state).complaint(receipt)) is not None:
        out.print(Text(f"✗ {path}: {complaint}", style="red"), soft_wrap=True)
        raise typer.Exit(DISPROVED)
    score = receipt.status if receipt.val_bpb is None else f"{receipt.val_bpb:.6f} bpb on {receipt.split}"
    out.print(Text(f"✓ run {receipt.run_id}: {score}, signed with key {receipt.key_id}"), soft_wrap=True)
