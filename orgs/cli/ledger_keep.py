"""Keeping a ledger: what goes into files and comes back from them, and whether it is still what was written."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ledger import Ledger
from ledger.backup import Backup, back_up, read_backup
from ledger.backup import restore as restore_backup
from ledger.champion import Champion, branches
from ledger.export import Format, write_experiments
from ledger.imports import imported_campaign, read_claims, rows_of
from ledger.inspection import inspect, several
from ledger.rebuild import rebuild as rebuild_ledger
from ledger.server import open_redis
from orgs.cli.console import DISPROVED, out
from orgs.cli.opening import ledger_of
from orgs.cli.options import CampaignOption, JsonOption, LabOption, RedisOption
from orgs.lab import Lab
from records import BadInput
from sandbox.receipt import KEY, Key

app = typer.Typer()


@app.command(epilog="Example: autoresearch-org ledger export results.tsv")
def export(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("results.tsv"),
    format: Annotated[Format | None, typer.Option(help="Format of the file.", show_default="by its ending")] = None,
    campaign: CampaignOption = None,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """Write a campaign to a file: the original's five columns (.tsv), everything, the headline's runs last (.jsonl), or a flat
    table (.parquet)."""
    with ledger_of(Lab.open(lab_root), redis, campaign) as ledger:
        experiments, headline = ledger.experiments(), ledger.headline_runs()
    write_experiments(path, experiments, format, headline)
    out.print(Text(f"wrote {path}"))


@app.command("import", epilog="Example: autoresearch-org ledger import results.tsv --name mar8")
def import_results(
    path: Annotated[Path, typer.Argument(help="A results.tsv in the original's five columns.", metavar="FILE")],
    name: Annotated[
        str | None, typer.Option(help="Name of the campaign.", show_default="import- and the file's name")
    ] = None,
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """Make a campaign to look at of somebody's results.tsv: unsigned claims, never measured here, never a champion."""
    lab, claims = Lab.open(lab_root), read_claims(path)
    campaign = imported_campaign(name or f"import-{path.stem}", path)
    with open_redis(lab.state, redis, allow_weak=True) as server:
        rows = rows_of(campaign, claims)
        Ledger(server.client, campaign.name).load(campaign, rows, "imported", campaign.imported_from)
    if as_json:
        print(json.dumps({"campaign": campaign.name, "rows": len(claims)}))
    else:
        out.print(
            Text(f"campaign {campaign.name}: {len(claims)} claims; ledger list -c {campaign.name}"), soft_wrap=True
        )


@app.command(epilog="Example: autoresearch-org ledger rebuild -c demo-0308-2210")
def rebuild(
    campaign: Annotated[
        str | None,
        typer.Option("--campaign", "-c", help="Campaign to rebuild.", show_default="every branch without a ledger"),
    ] = None,
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """After the loss of Redis: a campaign from the commits of its branch alone. What never merged is gone."""
    lab = Lab.open(lab_root)
    with open_redis(lab.state, redis, allow_weak=True) as server:
        held = Ledger.campaigns(server.client)
        champions = [Champion(lab.root, name) for name in ([campaign] if campaign else branches(lab.root))]
        if campaign is None:  # those that can be, and have to be
            champions = [c for c in champions if c.campaign not in held and c.beginning() is not None]
        if not champions:
            raise BadInput(
                "no branch autoresearch/… tells of a campaign that the ledger does not have: nothing to rebuild"
            )
        rebuilt = [rebuild_ledger(Ledger(server.client, c.campaign), c) for c in champions]
    if as_json:
        print(json.dumps([one._asdict() for one in rebuilt], indent=2))
    for one in () if as_json else rebuilt:
        out.print(Text(f"campaign {one.campaign}: {several(one.merges, 'merge')} from {one.branch}"), soft_wrap=True)
        for line in one.lost:
            out.print(Text(f"! {line}", style="yellow"), soft_wrap=True)


@app.command(epilog="Example: autoresearch-org ledger backup night.backup")
def backup(
    path: Annotated[Path, typer.Argument(help="File to write.", metavar="FILE")],
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """Write the whole ledger and its branches into one file, while the org runs. The key of the receipts is not in it."""
    lab = Lab.open(lab_root)
    with open_redis(lab.state, redis, allow_weak=True) as server:
        written = back_up(server.client, lab.root, path)
    tell_backup(written, f"wrote {path}", as_json)
    if not as_json:
        out.print(Text(f"keep {lab.state / KEY} with it: without that key no receipt can be verified"), soft_wrap=True)


@app.command(epilog="Example: autoresearch-org ledger restore night.backup")
def restore(
    path: Annotated[Path, typer.Argument(help="A backup.", metavar="FILE")],
    check: Annotated[
        bool, typer.Option("--check", help="Only look whether the file is whole, and what it holds.")
    ] = False,
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """Bring a backup back, into an empty ledger only, and its branches with it."""
    lab, found = Lab.open(lab_root), read_backup(path)
    if not check:
        with open_redis(lab.state, redis, allow_weak=True) as server:
            restore_backup(server.client, lab.root, found)
    tell_backup(found, f"{path} is whole" if check else f"restored {path}", as_json)


def tell_backup(held: Backup, done: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(held.summary, indent=2))
    else:
        campaigns = f"campaigns {', '.join(held.campaigns) or 'none'}"
        out.print(Text(f"{done}: {campaigns}; {len(held.keys)} keys as of {held.at}"), soft_wrap=True)


@app.command("verify", epilog="Example: autoresearch-org ledger verify")
def verify_ledger(
    campaign: CampaignOption = None,
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """Check the ledger against itself, the receipts and git: history, rows, signatures, merges, verdicts."""
    lab = Lab.open(lab_root)
    with ledger_of(lab, redis, campaign) as ledger:
        checks = inspect(ledger, Champion(lab.root, ledger.name), Key.existing(lab.state).complaint)
    if as_json:
        print(json.dumps([check._asdict() for check in checks], indent=2))
    for check in () if as_json else checks:
        mark = Text("✗ ", style="red") if check.complaints else Text("✓ ", style="green")
        out.print(mark + Text(f"{check.name:<8}  {check.found}"), soft_wrap=True)
        for caveat in check.caveats:
            out.print(Text(f"  ! {caveat}", style="yellow"), soft_wrap=True)
        for complaint in check.complaints:
            out.print(Text(f"    {complaint}", style="red"), soft_wrap=True)
    if any(check.complaints for check in checks):
        raise typer.Exit(DISPROVED)
