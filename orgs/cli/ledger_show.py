"""Looking into the ledger: its experiments, what they cost, what was foretold of them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.panel import Panel
from rich.syntax import Syntax
from rich.text import Text

from agents.fence import one_line
from ledger.purse import calls
from ledger.selection import Order, Selection, find, read_since
from orgs.cli.console import out
from orgs.cli.opening import ledger_of
from orgs.cli.options import CampaignOption, JsonOption, LabOption, RedisOption
from orgs.conversations import TEXT_LIMIT_CHARACTERS, Exchange, exchanges_of, lines_of
from orgs.cost import find_cap, read_cost
from orgs.figures import figures_of
from orgs.forecasts import records_of
from orgs.lab import Lab
from orgs.report import explain_state, tabulate
from orgs.report_experiment import describe, facts_of, summarise
from orgs.report_minds import explain_cost, explain_reviews, tabulate_cost, tabulate_dearest, tabulate_forecasts
from records import BadInput, State

app = typer.Typer()


@app.command("list", epilog="Example: autoresearch-org ledger list --state merged --sort bpb --limit 10 --json")
def list_experiments(
    state: Annotated[list[State] | None, typer.Option(help="Only those in this state; may be repeated.")] = None,
    lane: Annotated[str | None, typer.Option(help="Only those of this lane.")] = None,
    role: Annotated[
        str | None, typer.Option(metavar="ROLE[@SHA]", help="Only those that this role, in this version, worked on.")
    ] = None,
    author: Annotated[str | None, typer.Option(metavar="ROLE[/MIND]", help="Only those that it proposed.")] = None,
    since: Annotated[str | None, typer.Option(help="Only those that changed since: 12h, 3d, or a date.")] = None,
    sort: Annotated[Order, typer.Option(help="Order of the rows.")] = Order.ID,
    limit: Annotated[int, typer.Option(help="Rows at most, by id the newest; 0 for all.", min=0)] = 40,
    campaign: CampaignOption = None,
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """A row for each experiment of a campaign."""
    moment = None if since is None else read_since(since, datetime.now(UTC))
    selection = Selection(tuple(state or ()), lane, role, author, moment)
    with ledger_of(Lab.open(lab_root), redis, campaign) as ledger:
        experiments, total = find(ledger, selection, sort, limit or None), ledger.last_id()
        name, figures = ledger.name, figures_of(experiments, ledger.rows(ledger.repeats()))
    if as_json:
        print(json.dumps([summarise(e, figures.get(e.id)) for e in experiments], indent=2))
    else:
        shown = "" if len(experiments) == total else f": {len(experiments)} of {total} experiments"
        out.print(tabulate(experiments, f"campaign {name}{shown}", figures))


@app.command(epilog="Example: autoresearch-org ledger show 3 --transcript")
def show(
    experiment: Annotated[int, typer.Argument(help="Id of the experiment.", metavar="ID")],
    transcript: Annotated[
        bool,
        typer.Option("--transcript", help="What language models and agents were told about it, and what they said."),
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Of the transcript: long texts whole.")] = False,
    campaign: CampaignOption = None,
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """One experiment: why it stands where it stands, in words; hypothesis, diff, measurements, verdict."""
    lab = Lab.open(lab_root)
    if full and not transcript:
        raise BadInput("--full belongs to --transcript")
    with ledger_of(lab, redis, campaign) as ledger:
        found, booked, folder = ledger.experiment(experiment), calls(ledger), lab.transcripts(ledger.name)
    if transcript:
        show_transcript(exchanges_of(found, booked, folder), experiment, full, as_json)
        return
    if as_json:
        print(json.dumps(found.model_dump(mode="json") | {"why": explain_state(found)}, indent=2))
        return
    out.print(Panel(facts_of(found), title=f"#{found.id} {found.state}", title_align="left"))
    if found.candidate is not None and found.candidate.diff:
        out.print(Syntax(found.candidate.diff, "diff", background_color="default"))
    for measurement in found.measurements:
        out.print(describe(measurement))


def show_transcript(exchanges: list[Exchange], experiment: int, full: bool, as_json: bool) -> None:
    """Call by call."""
    if as_json:
        print(json.dumps([exchange.plain() for exchange in exchanges], indent=2))
    elif not exchanges:
        out.print(Text(f"#{experiment}: no language model and no agent was asked about it"), soft_wrap=True)
    for line in () if as_json else lines_of(exchanges, None if full else TEXT_LIMIT_CHARACTERS):
        out.print(Text(line), soft_wrap=True)


@app.command(epilog="Example: autoresearch-org ledger cost -c trio-0308-2210 --json")
def cost(
    campaign: CampaignOption = None,
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """What a campaign's language models have cost: by role and model, by experiment, for each merge."""
    lab = Lab.open(lab_root)
    with ledger_of(lab, redis, campaign) as ledger:
        found, cap = read_cost(ledger), find_cap(lab, ledger.campaign().org)
    if as_json:
        print(json.dumps(found.plain(cap), indent=2))
        return
    if not found.total.calls and not found.held_usd:
        nobody = f"campaign {found.campaign}: no language model and no agent was asked, 0 dollars"
        out.print(Text(nobody), soft_wrap=True)
        return
    out.print(tabulate_cost(found))
    if found.dearest:
        out.print(tabulate_dearest(found))
    for line in explain_cost(found, cap):
        out.print(Text(line), soft_wrap=True)


@app.command(epilog="Example: autoresearch-org ledger forecasts --json")
def forecasts(
    campaign: CampaignOption = None,
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """How well planners and reviewers foretell what merges, by role, mind and model: Brier's score (lower is better) against that of
    always forecasting the base rate; the expected change of val_bpb against the real one; what reviewers refused.

    A forecast counts once its change merged, or was judged, crashed or was invalid, which count as not merged. The model is that of
    the calls by which it was proposed or reviewed.
    """
    with ledger_of(Lab.open(lab_root), redis, campaign) as ledger:
        found = records_of(ledger.experiments(), calls(ledger))
        name = ledger.name
    if as_json:
        print(json.dumps([one.plain() for one in found], indent=2))
        return
    out.print(tabulate_forecasts(found, f"campaign {name}: forecasts and what came of them"))
    for line in explain_reviews(found):
        out.print(Text(one_line(line, 1000)), soft_wrap=True)
