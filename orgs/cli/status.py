"""A campaign at a glance."""

import json
from pathlib import Path

import typer
from rich.text import Text

from ledger import Ledger
from orgs.cli.console import out
from orgs.cli.opening import ledger_of
from orgs.cli.options import CampaignOption, JsonOption, LabOption, RedisOption
from orgs.lab import Lab
from orgs.report import show_status, tabulate_headline
from orgs.status import Status, counts_line, read_status
from sandbox.receipt import Key

app = typer.Typer()


@app.command("status", epilog="Example: autoresearch-org status -c demo-0308-2210 --json")
def show_campaign(
    campaign: CampaignOption = None,
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """A campaign at a glance: champion, error budget, noise and what speaks against it, results."""
    lab = Lab.open(lab_root)
    with ledger_of(lab, redis, campaign) as ledger:
        status = status_of(lab, ledger)
    if as_json:
        print(json.dumps(status.plain(), indent=2))
    else:
        out.print(show_status(status))


def tell_headline(status: Status) -> None:
    """What a campaign came to: its headline, if it has one, and its counts."""
    if status.headline is not None:
        out.print(tabulate_headline(status.headline))
    elif status.champion is not None and status.start is not None and status.champion.commit == status.start.commit:
        out.print(Text("nothing merged: the champion is the start"))
    out.print(Text(counts_line(status.results, promised=status.spending.promises), style="bold"), soft_wrap=True)


def status_of(lab: Lab, ledger: Ledger) -> Status:
    """The status of a campaign by receipts that are good. An imported one has none."""
    imported = bool(ledger.campaign().imported_from)
    return read_status(ledger, (lambda _: None) if imported else Key.existing(lab.state).complaint)
