"""A campaign: from its launch to the table that it ends with."""

import json
from pathlib import Path
from typing import Annotated

import typer
from redis import Redis
from rich.text import Text

from orgs.cli.console import err, out
from orgs.cli.opening import known, ledger_of
from orgs.cli.options import CampaignOption, LabOption, RedisOption, WeakOption
from orgs.cli.status import status_of, tell_headline
from orgs.doctor import render
from orgs.dry_run import explain_estimate, look
from orgs.estimate import estimate
from orgs.lab import Lab
from orgs.launch import Outcome, newest, unfinished
from orgs.launch import launch as run_campaign
from orgs.orgfile import OrgFile
from orgs.report import tabulate
from orgs.report_minds import explain_assumptions, tabulate_estimate
from orgs.view import Snapshot
from records import BadInput

app = typer.Typer()


@app.command(epilog="Example: autoresearch-org launch orgs/demo.toml")
def launch(
    org: Annotated[Path, typer.Argument(help="Org file.")],
    new: Annotated[
        bool, typer.Option("--new", help="Start a new campaign even if the last one of this org was interrupted.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Start nothing: look at what a launch looks at, and estimate what it would cost."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with --dry-run.")] = False,
    redis: RedisOption = None,
    allow_weak_redis: WeakOption = False,
    lab_root: LabOption = Path(),
) -> None:
    """Run an org until its budget is spent. Ctrl-C drains; twice stops at once; the next launch goes on.

    With --dry-run nothing is started and no key is needed; the ledger's Redis is not looked at (doctor does that), and the exit code
    is the one with which a launch would be refused.
    """
    lab = Lab.open(lab_root)
    if dry_run:
        rehearse(lab, OrgFile.load(org, lab.root), as_json)
        return
    if as_json:
        raise BadInput("--json belongs to --dry-run: a launch shows its progress, and `status --json` what it came to")

    def pick(client: Redis, org: OrgFile) -> str | None:
        return None if new else unfinished(client, org)

    ended = run_campaign(lab, org, redis_url=redis, allow_weak_redis=allow_weak_redis, console=out, pick=pick)
    finish(lab, ended, redis)


@app.command(epilog="Example: autoresearch-org resume orgs/demo.toml --campaign demo-0308-2210")
def resume(
    org: Annotated[Path, typer.Argument(help="Org file; its budget may have been raised.")],
    campaign: CampaignOption = None,
    redis: RedisOption = None,
    allow_weak_redis: WeakOption = False,
    lab_root: LabOption = Path(),
) -> None:
    """Go on with a campaign that was interrupted, crashed, or has spent its budget."""
    lab = Lab.open(lab_root)

    def pick(client: Redis, org: OrgFile) -> str:
        return newest(client, org) if campaign is None else known(client, campaign)

    ended = run_campaign(lab, org, redis_url=redis, allow_weak_redis=allow_weak_redis, console=out, pick=pick)
    finish(lab, ended, redis)


def rehearse(lab: Lab, org: OrgFile, as_json: bool) -> None:
    """What a launch would find, and cost."""
    found = []
    with (err if as_json else out).status("looking"):
        for looked in look(lab, org):
            found.append(looked)
            if not as_json:
                out.print(render(looked.line))
    refused = next((looked.exit_code for looked in found if looked.exit_code), 0)
    try:
        cost = estimate(lab, org)
    except (
        BadInput
    ) as error:  # a role that is wrong has its line already; prices and programs are read here for the first time
        if not refused:
            raise
        err.print(Text(f"no estimate: {error}"), soft_wrap=True)
        raise typer.Exit(refused) from None
    if as_json:
        print(json.dumps({"checks": [looked.line._asdict() for looked in found], "cost": cost.plain()}, indent=2))
    else:
        if cost.tasks:
            out.print(tabulate_estimate(cost))
        for line in explain_estimate(cost):
            out.print(Text(line), soft_wrap=True)
        if cost.tasks:
            out.print(Text(explain_assumptions(), style="dim"), soft_wrap=True)
    if refused:
        raise typer.Exit(refused)


def finish(lab: Lab, ended: Outcome, redis: str | None) -> None:
    """The table of a campaign, its headline, and where to look next."""
    with ledger_of(lab, redis, ended.campaign) as ledger:
        snapshot, status = Snapshot.read(ledger), status_of(lab, ledger)
    out.print(tabulate(snapshot.experiments, f"campaign {ended.campaign}", snapshot.figures))
    out.print(Text(f"ended: {ended.reason}"))
    tell_headline(status)
    if snapshot.champion is not None:
        branch, base = f"autoresearch/{ended.campaign}", snapshot.campaign.base[:10]
        out.print(Text(f"branch: {branch}"))
        out.print(Text(f"merges: git log -p {base}..{branch} -- train.py"), soft_wrap=True)
    if not ended.finished:
        out.print(Text("interrupted: the same launch command goes on where this stopped"))
        raise typer.Exit(130)
