"""The command line. Every command prints data with --json, and ends with a documented exit code."""

import hashlib
import json
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from redis import Redis, RedisError
from redis.exceptions import NoPermissionError
from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from agents.fence import one_line
from ledger import Ledger
from ledger.backup import Backup, back_up, read_backup
from ledger.backup import restore as restore_backup
from ledger.champion import Champion, branches
from ledger.export import Format, write_experiments
from ledger.imports import imported_campaign, read_claims, rows_of
from ledger.inspection import inspect, several
from ledger.lease import hold
from ledger.noise import pool, reproduce
from ledger.purse import calls
from ledger.rebuild import rebuild as rebuild_ledger
from ledger.rules import RULES
from ledger.selection import Order, Selection, find, read_since
from ledger.server import RedisServer, join, open_redis
from orgs.again import CandidateFailed, Conditions, cancelled_by_signals
from orgs.conversations import TEXT_LIMIT_CHARACTERS, Exchange, exchanges_of, lines_of
from orgs.cost import find_cap, read_cost
from orgs.data import ensure_dataset
from orgs.doctor import Examination, Level, render
from orgs.dry_run import explain_estimate, look
from orgs.effects import SIGMA, read_effects
from orgs.estimate import estimate
from orgs.figures import Figure, figures_of
from orgs.forecasts import records_of
from orgs.headline import measure_headline, why_none
from orgs.lab import Lab
from orgs.launch import Outcome, newest, unfinished
from orgs.launch import launch as run_campaign
from orgs.orgfile import Data, OrgFile, RoleName, SandboxSettings, explain
from orgs.preflight import Preflight
from orgs.prompts import render as render_role
from orgs.report import (
    explain_audit,
    explain_reproduction,
    explain_state,
    plain,
    scores_by_source,
    show_status,
    tabulate,
    tabulate_headline,
    tabulate_simulation,
)
from orgs.report_minds import (
    explain_assumptions,
    explain_cost,
    explain_prompt,
    explain_reviews,
    parts_of,
    tabulate_cost,
    tabulate_dearest,
    tabulate_estimate,
    tabulate_forecasts,
)
from orgs.role_check import check_lab, check_org
from orgs.role_check import shown as shown_path
from orgs.simulate import Simulation, simulate_nights, summarise_nights
from orgs.status import Status, counts_line, read_status
from orgs.view import Snapshot
from records import BadInput, Experiment, Measurement, MissingComponent, Progress, Refusal, Review, State, Verdict
from sandbox.dataset import Dataset
from sandbox.device import Device, find_device
from sandbox.engines import Engine
from sandbox.failure import Faulted
from sandbox.measure import measure, preview
from sandbox.oversee import Cancelled
from sandbox.profile import STOLEN_CPU, Limits
from sandbox.ready import ready_engine
from sandbox.receipt import KEY, Key, read_receipt
from sandbox.sweep import sweep

EXIT_CODES = """
Exit codes: 0 done · 1 a bug · 2 bad input (a flag, a file) · 3 something is missing (engine, dataset, git, Redis) ·
4 the host failed (disk, lease, engine); nothing is lost · 5 the candidate failed · 6 a receipt or the ledger does
not verify, or a replay does not reproduce · 130 interrupted
"""
DISPROVED = 6

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    epilog=EXIT_CODES,
    help="A research organisation that improves train.py while you sleep, and measures honestly.",
)
ledger_app = typer.Typer(
    no_args_is_help=True, epilog=EXIT_CODES, help="Look into the ledger: what was tried, and what became of it."
)
app.add_typer(ledger_app, name="ledger")
receipt_app = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES, help="Signed measurements: print one, check one.")
app.add_typer(receipt_app, name="receipt")
roles_app = typer.Typer(
    no_args_is_help=True, epilog=EXIT_CODES, help="What roles would be told, and whether their files are right."
)
app.add_typer(roles_app, name="roles")

out = Console()
err = Console(stderr=True)

LabOption = Annotated[Path, typer.Option("--lab", help="The clone to work in.", show_default="this folder")]
RedisOption = Annotated[
    str | None, typer.Option("--redis", metavar="URL", help="A Redis (6.2 or later) instead of the embedded one.")
]
WeakOption = Annotated[
    bool,
    typer.Option(
        "--allow-weak-redis", help="Take a Redis that could lose writes, or has no users; every receipt says so."
    ),
]
CampaignOption = Annotated[
    str | None, typer.Option("--campaign", "-c", help="Campaign to look at.", show_default="the newest")
]
EngineOption = Annotated[str, typer.Option(help="Container engine: auto, docker or runc.")]
ImageOption = Annotated[
    str | None, typer.Option(help="Docker image, such as docker/Dockerfile makes.", show_default="the host's Python")
]
RuntimeOption = Annotated[
    str | None, typer.Option(help="Docker runtime, such as runsc (gVisor).", show_default="the daemon's default")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or the UUID of a GPU.")]
StolenOption = Annotated[
    float, typer.Option(help="Share of its CPU time that others may take from a run on the CPU.", min=0.0, max=1.0)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


# ---- running ---------------------------------------------------------------------------------------------------------


@app.command(epilog="Example: autoresearch-org run train.py --profile cpu --budget-s 10 --json")
def run(
    source: Annotated[Path, typer.Argument(help="The train.py to measure.")] = Path("train.py"),
    profile: Annotated[str, typer.Option(help="Profile of the dataset: cpu, small or h100.")] = "cpu",
    dataset: Annotated[Path | None, typer.Option(help="Folder of a prepared dataset, instead of a profile.")] = None,
    budget_s: Annotated[
        float | None, typer.Option(help="Seconds of training.", show_default="the dataset's", min=0.1)
    ] = None,
    engine: EngineOption = "auto",
    image: ImageOption = None,
    runtime: RuntimeOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse container programs for whose version a way out has been published.")
    ] = False,
    device: DeviceOption = "auto",
    cpus: Annotated[float | None, typer.Option(help="CPUs of the candidate.", show_default="all", min=0.1)] = None,
    memory_gb: Annotated[float | None, typer.Option(help="Memory of the candidate.", min=0.1)] = None,
    stolen_cpu: StolenOption = STOLEN_CPU,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.", show_default="drawn afresh")] = None,
    full_audit: Annotated[
        bool, typer.Option("--full-audit", help="Audit as a merge requires: several passes over the split.")
    ] = False,
    as_json: JsonOption = False,
    lab_root: LabOption = Path(),
) -> None:
    """Measure one train.py in the sandbox, with no org at all."""
    lab = Lab.open(lab_root)
    text = read_source(source)
    data = Dataset.open(dataset) if dataset else dataset_of_profile(lab, profile)
    target = find_device(device)
    chosen = checked_engine(lab, engine, target, image=image, runtime=runtime, strict=strict)
    with cancelled_by_signals() as cancel, err.status("starting") as status:
        phase = "starting"

        def on_phase(name: str) -> None:
            nonlocal phase
            phase = name
            status.update(phase)

        def on_progress(progress: Progress) -> None:
            status.update(f"{phase} {progress.elapsed_s:.0f} s, step {progress.step}, loss {progress.nats:.3f}")

        measurement = measure(
            text,
            data,
            chosen,
            budget_s=budget_s or data.budget_s,
            seed=secrets.randbelow(2**31) if seed is None else seed,
            device=target,
            limits=Limits.of(cpus=cpus, memory_gb=memory_gb, stolen_cpu=stolen_cpu),
            full_audit=lambda _: full_audit,
            run_id=f"run-{secrets.token_hex(6)}",
            state_dir=lab.state,
            on_phase=on_phase,
            on_progress=on_progress,
            cancel=cancel,
        )
    if as_json:
        print(measurement.model_dump_json(indent=2))
    else:
        out.print(describe(measurement))
    if cancel.is_set():
        raise typer.Exit(130)
    if measurement.failure is not None:
        raise typer.Exit(4 if measurement.failure.kind.ours else 5)


@app.command(epilog="Example: autoresearch-org audit train.py")
def audit(
    source: Annotated[Path, typer.Argument(help="The train.py to look at.")] = Path("train.py"),
    profile: Annotated[str, typer.Option(help="Profile of the dataset: cpu, small or h100.")] = "cpu",
    dataset: Annotated[Path | None, typer.Option(help="Folder of a prepared dataset, instead of a profile.")] = None,
    rows: Annotated[int, typer.Option(help="Rows of training text to ask about.", min=1)] = 64,
    cuts: Annotated[int, typer.Option(help="Positions to ask again without the text after them.", min=2)] = 256,
    engine: EngineOption = "auto",
    image: ImageOption = None,
    runtime: RuntimeOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    lab_root: LabOption = Path(),
) -> None:
    """Would this train.py pass the audit? With random weights and training text, before a GPU is spent on it."""
    lab = Lab.open(lab_root)
    text = read_source(source)
    data = Dataset.open(dataset) if dataset else dataset_of_profile(lab, profile)
    target = find_device(device)
    chosen = checked_engine(lab, engine, target, image=image, runtime=runtime, strict=False)
    with cancelled_by_signals() as cancel, err.status("asking the model"):
        try:
            found = preview(text, data, chosen, rows=rows, cuts=cuts, device=target, state_dir=lab.state, cancel=cancel)
        except Faulted as fault:
            if as_json:
                print(fault.failure.model_dump_json(indent=2))
            else:
                out.print(Text(f"✗ {fault.failure.kind}: {fault.failure.message}", style="red"), soft_wrap=True)
            raise typer.Exit(5) from None
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        out.print(Text(f"✓ {explain_audit(found)}"), soft_wrap=True)


@app.command(epilog="Example: autoresearch-org preflight train.py --org orgs/demo.toml --json")
def preflight(
    source: Annotated[Path, typer.Argument(help="The train.py to try.")] = Path("train.py"),
    org: Annotated[
        Path | None, typer.Option(help="Org file: its dataset and its sandbox, instead of the options below.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Profile of the dataset: cpu, small or h100.")] = "cpu",
    dataset: Annotated[Path | None, typer.Option(help="Folder of a prepared dataset, instead of a profile.")] = None,
    engine: EngineOption = "auto",
    image: ImageOption = None,
    runtime: RuntimeOption = None,
    as_json: JsonOption = False,
    lab_root: LabOption = Path(),
) -> None:
    """Does this train.py start, train and submit? Two tiny steps on the CPU. What it cannot tell in time is no failure: exit code 0."""
    lab = Lab.open(lab_root)
    text = read_source(source)
    if org is not None:
        chosen = OrgFile.load(org, lab.root)
        data, settings = ensure_dataset(lab, chosen.data, err), chosen.sandbox
    else:
        data = Dataset.open(dataset) if dataset else dataset_of_profile(lab, profile)
        settings = sandbox_settings(engine=engine, image=image, runtime=runtime)
    with err.status("checking the sandbox"):
        attempt = Preflight.open(lab, data, settings)
    with cancelled_by_signals() as cancel, err.status("trying two steps"):
        try:
            found = attempt(text, cancel)
        except Cancelled:
            raise typer.Exit(130) from None
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        mark, style = {"passes": ("✓", ""), "fails": ("✗", "red"), "unknown": ("?", "yellow")}[found.outcome]
        out.print(Text(f"{mark} {found.text}", style=style), soft_wrap=True)
    if found.outcome == "fails":
        raise typer.Exit(5)


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


@app.command(epilog="Example: autoresearch-org doctor --engine runc --json")
def doctor(
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what hosts that died left behind; touch nothing else.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Red, not yellow, for programs whose version has a published way out.")
    ] = False,
    engine: EngineOption = "auto",
    image: ImageOption = None,
    runtime: RuntimeOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """Look at everything that a night depends on: one line for each thing, and what to do about it."""
    settings = sandbox_settings(engine=engine, image=image, runtime=runtime, device=device, strict=strict)
    lines = []
    with (err if as_json else out).status("looking") as status:  # on the console of the lines, or they would mix
        examination = Examination(
            Lab.open(lab_root), settings, redis, clean, lambda control: status.update(f"proving: {control}")
        )
        for line in examination.lines():
            lines.append(line)
            if not as_json:
                out.print(render(line))
            status.update("looking")
    if as_json:
        print(json.dumps([line._asdict() for line in lines], indent=2))
    if any(line.level == Level.RED for line in lines):
        raise typer.Exit(MissingComponent.exit_code)


# ---- roles -----------------------------------------------------------------------------------------------------------


@roles_app.command("show", epilog="Example: autoresearch-org roles show planner --org orgs/trio.toml --count")
def show_role(
    role: Annotated[RoleName, typer.Argument(help="Which role.")],
    org: Annotated[
        Path | None, typer.Option(help="Its org file.", show_default="roles/ with their own front matter")
    ] = None,
    campaign: Annotated[
        str | None,
        typer.Option("--campaign", "-c", help="Campaign that it is about.", show_default="the newest, of the org"),
    ] = None,
    count: Annotated[
        bool, typer.Option("--count", help="Ask the API's own counter for the tokens: needs a key.")
    ] = False,
    as_json: JsonOption = False,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """The prompt that a role would be given now, letter by letter, with its tools. Nothing is sent, unless --count asks for that."""
    lab = Lab.open(lab_root)
    chosen = OrgFile(name="default") if org is None else OrgFile.load(org, lab.root)
    with ledger_if_any(lab, redis, campaign, None if org is None else chosen) as ledger:
        rendered = render_role(lab, chosen, role, ledger)
    if count and not rendered.tools:
        raise BadInput(f"--count: mind {rendered.settings.mind} of the {role} asks no language model")
    counted = rendered.count(chosen, lab) if count else None
    path = shown_path(lab, rendered.path)
    if as_json:
        values: dict[str, Any] = {
            "role": role,
            "file": path,
            "sha256": rendered.sha256,
            "settings": rendered.settings.model_dump(mode="json", exclude_unset=True),
            "settings_of": "org" if rendered.instead else "front matter",
            "campaign": rendered.campaign,
            "about": rendered.about,
            "tokens": {**rendered.sizes._asdict(), "whole": rendered.sizes.whole, "counted": counted},
            "stable": rendered.prompt.stable,
            "task": rendered.prompt.task,
            "tools": rendered.tools,
        }
        print(json.dumps(values, indent=2))
        return
    out.print(explain_prompt(rendered, path, None if org is None else str(org), counted))
    for part in parts_of(rendered):
        out.print(Text(part), soft_wrap=True)
    for tool in rendered.tools:
        out.print(Text(f"──── tool {tool['name']} ────\n{json.dumps(tool, indent=2)}"), soft_wrap=True)


@roles_app.command("check", epilog="Example: autoresearch-org roles check --org orgs/trio.toml --json")
def check_role_files(
    org: Annotated[Path | None, typer.Option(help="Org file.", show_default="roles/ and all of orgs/")] = None,
    as_json: JsonOption = False,
    lab_root: LabOption = Path(),
) -> None:
    """Can every role be played? Settings, mind, price and prompt, for a made-up task; a line each, with file and line of what is wrong.

    Exit code 2 if one is wrong. A missing key is told, and is nothing wrong with a role: the exit code is 0 then, and a launch is
    what refuses it.
    """
    lab = Lab.open(lab_root)
    found = check_lab(lab) if org is None else list(check_org(lab, org))
    if as_json:
        print(json.dumps([one._asdict() for one in found], indent=2))
    for one in () if as_json else found:
        mark, style = {"ok": ("✓", "green"), "no key": ("!", "yellow"), "wrong": ("✗", "red")}[one.outcome]
        where = " ".join(part for part in (one.org, one.role, one.file) if part)
        told = f"no key: {one.says}" if one.outcome == "no key" else one.says
        out.print(Text(f"{mark} ", style=style) + Text(one_line(f"{where}: {told}", 1000)), soft_wrap=True)
    if any(one.outcome == "wrong" for one in found):
        raise typer.Exit(BadInput.exit_code)


# ---- looking ---------------------------------------------------------------------------------------------------------


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


@ledger_app.command("list", epilog="Example: autoresearch-org ledger list --state merged --sort bpb --limit 10 --json")
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


@ledger_app.command(epilog="Example: autoresearch-org ledger show 3 --transcript")
def show(
    experiment: Annotated[int, typer.Argument(help="Id of the experiment.", metavar="ID")],
    transcript: Annotated[
        bool, typer.Option("--transcript", help="What language models were told about it, and what they said.")
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
        out.print(Text(f"#{experiment}: no language model was asked about it"), soft_wrap=True)
    for line in () if as_json else lines_of(exchanges, None if full else TEXT_LIMIT_CHARACTERS):
        out.print(Text(line), soft_wrap=True)


@ledger_app.command(epilog="Example: autoresearch-org ledger cost -c trio-0308-2210 --json")
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
        out.print(Text(f"campaign {found.campaign}: no language model was asked, 0 dollars"), soft_wrap=True)
        return
    out.print(tabulate_cost(found))
    if found.dearest:
        out.print(tabulate_dearest(found))
    for line in explain_cost(found, cap):
        out.print(Text(line), soft_wrap=True)


@ledger_app.command(epilog="Example: autoresearch-org ledger forecasts --json")
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


@ledger_app.command(epilog="Example: autoresearch-org ledger replay 3 --runs 2")
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


@receipt_app.command("show", epilog="Example: autoresearch-org receipt show 3 > receipt.json")
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


@receipt_app.command(epilog="Example: autoresearch-org receipt verify receipt.json")
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


@ledger_app.command(epilog="Example: autoresearch-org ledger export results.tsv")
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


@ledger_app.command("import", epilog="Example: autoresearch-org ledger import results.tsv --name mar8")
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


@ledger_app.command(epilog="Example: autoresearch-org ledger rebuild -c demo-0308-2210")
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


@ledger_app.command(epilog="Example: autoresearch-org ledger backup night.backup")
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


@ledger_app.command(epilog="Example: autoresearch-org ledger restore night.backup")
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


@ledger_app.command("verify", epilog="Example: autoresearch-org ledger verify")
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


@app.command(epilog="Example: autoresearch-org report --out night.png --test")
def report(
    path: Annotated[Path, typer.Option("--out", help="Plot to write.")] = Path("progress.png"),
    test: Annotated[
        bool, typer.Option("--test", help="Also measure start and champion on the sealed test split, with fresh seeds.")
    ] = False,
    runs: Annotated[
        int, typer.Option(help="Runs of each that there have to be, with --test; those in the ledger count.", min=1)
    ] = 2,
    stolen_cpu: StolenOption = STOLEN_CPU,
    campaign: CampaignOption = None,
    redis: RedisOption = None,
    lab_root: LabOption = Path(),
) -> None:
    """Write the progress plot of a campaign (all experiments, the merged ones, the champion), and print its headline."""
    from orgs.plot import plot  # see there

    lab = Lab.open(lab_root)
    with ledger_of(lab, redis, campaign) as ledger:
        snapshot = Snapshot.read(ledger)
    if not any(e.score for e in snapshot.experiments):
        raise BadInput(f"campaign {snapshot.campaign.name} has no scored experiment yet: nothing to plot")
    merged = sum(e.state == State.MERGED for e in snapshot.judged)
    plot(snapshot.experiments, path, f"{snapshot.campaign.name}: {len(snapshot.judged)} experiments, {merged} merged")
    out.print(Text(f"plot: {path}"))
    if test:
        complete_headline(lab, redis, snapshot.campaign.name, runs, stolen_cpu)
    if not snapshot.campaign.imported_from:
        with ledger_of(lab, redis, snapshot.campaign.name) as ledger:
            tell_headline(status_of(lab, ledger))


@app.command(epilog="Example: autoresearch-org simulate --effects null --tails t5 --nights 2000")
def simulate(
    rule: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(RULES)}.", show_default="all of them, side by side")
    ] = None,
    effects: Annotated[
        str,
        typer.Option(
            help="What ideas are worth: null, mixed, late, mar8, or a file with an improvement in bpb a line."
        ),
    ] = "mixed",
    sigma: Annotated[float, typer.Option(help="Deviation of one run, in bits per byte.")] = SIGMA,
    tails: Annotated[str, typer.Option(help="Noise: normal, or t5 (Student's t, heavy tails).")] = "normal",
    nights: Annotated[int, typer.Option(help="Nights to simulate, under each rule.")] = 1000,
    experiments: Annotated[
        int, typer.Option(help="Runs of a night, everything included: a rule that measures more judges less.")
    ] = 100,
    baseline_runs: Annotated[
        int, typer.Option(help="Of them, runs of the unchanged start, which say what the noise is.")
    ] = 8,
    alpha: Annotated[float, typer.Option(help="What the chance of any false merge in a night may be.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the worlds and their noise; the same for every rule.")] = 0,
    plots: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write power.png, false-merges.png and gains.png to this folder."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Try the merge rules on a virtual GPU, in worlds whose truth is known: what is found, what is wrongly merged.

    Nothing is run, and no clone, dataset or ledger is needed. docs/statistics.md explains the rules and the figures.
    """
    simulation = Simulation(
        effects=read_effects(effects),
        sigma=sigma,
        tails=tails,
        nights=nights,
        experiments=experiments,
        baseline_runs=baseline_runs,
        alpha=alpha,
        seed=seed,
    )
    if plots is not None:
        from orgs.curves import draw_curves, ensure_folder  # see there

        ensure_folder(plots)
    made = simulate_nights([rule] if rule is not None else list(RULES), simulation)
    summaries = [summarise_nights(name, its) for name, its in made.items()]
    if as_json:
        print(json.dumps([summary._asdict() for summary in summaries], indent=2))
    else:
        title = f"{nights} nights of {experiments} runs, effects {effects}, σ {sigma:g} bpb, {tails} noise, α {alpha:g}"
        out.print(tabulate_simulation(summaries, title))
    if plots is not None:
        with err.status("simulating the curves"):
            written = draw_curves(plots, made, simulation, effects)
        for path in written:
            err.print(Text(f"plot: {path}"))


def complete_headline(lab: Lab, redis: str | None, campaign: str, runs: int, stolen_cpu: float) -> None:
    """Champion and start on text that no decision has seen, until there are so many runs of each."""
    with bench_of(lab, redis, campaign) as (ledger, leases):
        champion = ledger.champion_experiment()
        if champion is None or champion.score is None:
            raise BadInput(f"campaign {ledger.name} has no champion yet: nothing to compare")
        if why_none(ledger.campaign(), champion.commit) is not None:
            return
        with err.status("checking the sandbox"):
            conditions = Conditions.of(
                champion.score, lab, engine=None, image=None, runtime=None, stolen_cpu=stolen_cpu
            )
        with cancelled_by_signals() as cancel, err.status("starting") as status:
            done = measure_headline(
                ledger,
                Champion(lab.root, ledger.name),
                leases,
                conditions,
                runs,
                complaint=Key.existing(lab.state).complaint,
                by="report",
                say=lambda line: err.print(Text(line), soft_wrap=True),
                on_phase=status.update,
                cancel=cancel,
            )
    if not done:
        raise typer.Exit(130)


# ---- shared by the commands ------------------------------------------------------------------------------------------


def read_source(path: Path) -> str:
    """Text of a train.py. Raises BadInput if it has none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None


def sandbox_settings(**options: object) -> SandboxSettings:
    """Options of a command as an org file would have them. Raises BadInput that names the first that is wrong."""
    try:
        return SandboxSettings.model_validate(options)
    except ValidationError as error:
        raise BadInput(f"--{explain(error)}") from None


def checked_engine(
    lab: Lab, name: str, device: Device, *, image: str | None, runtime: str | None, strict: bool
) -> Engine:
    """An engine that holds, and nothing left of runs that died. As sandbox.ready, saying what takes a moment."""
    with err.status("checking the sandbox"):
        engine = ready_engine(name, device, state_dir=lab.state, image=image, runtime=runtime, strict=strict)
    sweep([engine], lab.state)
    return engine


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


def dataset_of_profile(lab: Lab, profile: str) -> Dataset:
    """The dataset that was prepared in this profile; where none was, the offline one, which is then made."""
    if profile not in ("cpu", "small", "h100"):
        raise BadInput(f"--profile {profile}: allowed are cpu, small, h100")
    try:
        return Dataset.open(lab.dataset_of_profile(profile))
    except MissingComponent:
        return ensure_dataset(lab, Data.model_validate({"corpus": "python", "profile": profile}), err)


@contextmanager
def ledger_of(lab: Lab, redis_url: str | None, campaign: str | None) -> Iterator[Ledger]:
    """The ledger of a campaign, by default the newest.

    Raises:
        MissingComponent: there is no campaign yet.
        BadInput: there is none of that name.
    """
    with server_of(lab, redis_url, campaign) as (server, name):
        yield server.ledger(name)


@contextmanager
def ledger_if_any(
    lab: Lab, redis_url: str | None, campaign: str | None, org: OrgFile | None
) -> Iterator[Ledger | None]:
    """The ledger of a campaign, by default of the newest that was not imported; of this org, if one is given. None where there is none.

    Raises:
        BadInput: there is none of that name.
    """
    with open_redis(lab.state, redis_url, allow_weak=True) as server:
        reader = join(server.logins["reader"])
        if campaign is not None:
            yield server.ledger(known(reader, campaign))
            return
        campaigns = [Ledger(reader, name).campaign() for name in Ledger.campaigns(reader)]
        mine = [c for c in campaigns if not c.imported_from and (org is None or c.org == org.name)]
        yield server.ledger(max(mine, key=lambda c: c.created_at).name) if mine else None


@contextmanager
def bench_of(lab: Lab, redis_url: str | None, campaign: str | None) -> Iterator[tuple[Ledger, Redis]]:
    """The same ledger for one who measures, and the connection that leases devices."""
    with server_of(lab, redis_url, campaign) as (server, name):
        yield server.ledger(name, "runner"), join(server.logins["lease"])


@contextmanager
def server_of(lab: Lab, redis_url: str | None, campaign: str | None) -> Iterator[tuple[RedisServer, str]]:
    # Whoever only looks may look into any.
    with open_redis(lab.state, redis_url, allow_weak=True) as server:
        reader = join(server.logins["reader"])
        names = Ledger.campaigns(reader)
        if not names:
            raise MissingComponent(
                "the ledger is empty: run autoresearch-org launch orgs/demo.toml, or bring a lost one back with ledger restore "
                "or ledger rebuild"
            )
        campaigns = [Ledger(reader, name).campaign() for name in names]
        last = max(campaigns, key=lambda one: (not one.imported_from, one.created_at)).name  # the lab's own come first
        yield server, last if campaign is None else known(reader, campaign)


def known(client: Redis, campaign: str) -> str:
    """The name itself. Raises BadInput if the ledger has no such campaign."""
    names = Ledger.campaigns(client)
    if campaign not in names:
        raise BadInput(f"no campaign {campaign} in this ledger (there are: {', '.join(names) or 'none'})")
    return campaign


def summarise(experiment: Experiment, claimed: Figure | None) -> dict[str, Any]:
    """The row of `ledger list --json`; `claimed`: what is claimed of one that won."""
    score = experiment.score
    return {
        "id": experiment.id,
        "lane": experiment.lane,
        "state": experiment.state,
        "title": experiment.hypothesis.title,
        "author": experiment.author,
        "val_bpb": score.val_bpb if score else None,
        "claimed_bpb": experiment.claim and experiment.claim.bpb,
        "fresh_bpb": claimed.bpb if claimed and claimed.fresh else None,
        "fresh_runs": claimed.runs if claimed and claimed.fresh else 0,
        "repeats": experiment.repeats,
        "num_steps": score.num_steps if score else None,
        "commit": experiment.commit,
        "why": experiment.why,
        "created_at": experiment.created_at,
        "updated_at": experiment.updated_at,
    }


def facts_of(experiment: Experiment) -> Table:
    """Who, what and why of one experiment, as a two-column grid."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    hypothesis = experiment.hypothesis
    forecast = f"{hypothesis.expected_delta_bpb:+.4f} bpb, merges with probability {hypothesis.probability:.2f}"
    rows = [
        ("title", hypothesis.title),
        ("why", f"{experiment.state}: {explain_state(experiment)}"),
        ("change", hypothesis.change),
        ("rationale", hypothesis.rationale),
        ("forecast", "" if experiment.lane in ("baseline", "imported") else forecast),
        ("author", experiment.author),
        ("roles", " ".join(f"{role}@{sha[:10]}" for role, sha in experiment.roles.items())),
        ("parent", experiment.candidate.parent[:10] if experiment.candidate else ""),
        ("review", f"{experiment.review.code}: {experiment.review.reason}" if experiment.review else ""),
        ("its forecast", forecast_of(experiment.review) if experiment.review else ""),
        (
            "lesson",
            f"{experiment.lesson.text} ({experiment.lesson.author})"
            if experiment.lesson and experiment.lesson.text
            else "",
        ),
        ("verdict", f"{experiment.verdict.rule}: {experiment.verdict.reason}" if experiment.verdict else ""),
        *(numbers_of(experiment.verdict) if experiment.verdict else []),
        ("commit", experiment.commit or ""),
        ("note", experiment.note),
    ]
    for name, text in rows:
        if text:
            grid.add_row(name, Text("".join(c if c.isprintable() or c == "\n" else " " for c in text)))
    return grid


def forecast_of(review: Review) -> str:
    """What the reviewer expects; nothing of one that does not say."""
    if review.probability is None or review.expected_delta_bpb is None:
        return ""
    return f"{review.expected_delta_bpb:+.4f} bpb, merges with probability {review.probability:.2f}"


def numbers_of(verdict: Verdict) -> list[tuple[str, str]]:
    """What a verdict was decided by, as rows."""
    numbers: list[tuple[str, float | int | None, str]] = [
        ("effect", verdict.effect_bpb, ".6f"),
        ("threshold", verdict.threshold_bpb, ".6f"),
        ("may lose", verdict.allowed_bpb or None, ".6f"),
        ("σ̂", verdict.sigma_bpb, ".6f"),
        ("ν", verdict.freedom, "d"),
        ("n_c", len(verdict.champion_runs) or None, "d"),
        ("K spent", verdict.judged, "d"),
        ("p1", verdict.p1, ".3g"),
        ("α left", verdict.alpha_left, ".3g"),
    ]
    told = ", ".join(f"{name} {value:{form}}" for name, value, form in numbers if value is not None)
    return [
        ("numbers", told),
        ("its runs", " ".join(verdict.candidate_runs)),
        ("champion's", " ".join(verdict.champion_runs)),
        ("noise by", " | ".join(" ".join(group) for group in verdict.noise_runs)),
    ]


def describe(measurement: Measurement) -> Panel:
    """One measurement as a panel."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    if measurement.audit is not None:
        grid.add_row("audit", plain(explain_audit(measurement.audit)))
    left_out = {"hashes", "failure", "log_tail", "audit", "hmac"}
    for name, value in measurement.model_dump(exclude=left_out).items():
        if value not in (None, ""):
            grid.add_row(name, plain(f"{value:.6g}" if isinstance(value, float) else str(value)))
    if measurement.failure is not None:
        grid.add_row("failure", plain(f"{measurement.failure.kind}: {measurement.failure.message}"))
        grid.add_row("log (quoted)", Text(measurement.log_tail[-2000:], style="dim"))
    return Panel(
        grid,
        title=f"measurement {measurement.run_id}",
        title_align="left",
        border_style="green" if measurement.val_bpb is not None else "red",
    )


def main() -> None:
    """Console entry point: refusals, and what the machine does to us, end as one line and an exit code."""
    try:
        app()
    except Refusal as refusal:
        end(str(refusal), refusal.exit_code)
    except NoPermissionError as error:
        end(f"the ledger's Redis refuses this ({error}): if its users were changed, the next launch sets them right", 4)
    except RedisError as error:
        end(f"the ledger's Redis stopped answering ({error}); nothing is lost, the same command goes on", 4)
    except OSError as error:
        end(f"{error.filename or 'the machine'}: {error.strerror or error}", 4)


def end(line: str, exit_code: int) -> NoReturn:
    err.print(Text(f"autoresearch-org: {line}", style="red"), soft_wrap=True)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
