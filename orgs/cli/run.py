"""Measuring one train.py in the sandbox, with no org at all."""

import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from orgs.again import cancelled_by_signals
from orgs.cli.console import err, out
from orgs.cli.options import (
    DeviceOption,
    EngineOption,
    ImageOption,
    JsonOption,
    LabOption,
    RuntimeOption,
    StolenOption,
    sandbox_settings,
)
from orgs.data import ensure_dataset
from orgs.lab import Lab
from orgs.orgfile import Data, OrgFile
from orgs.preflight import Preflight
from orgs.report import explain_audit
from orgs.report_experiment import describe
from records import BadInput, MissingComponent, Progress
from sandbox.dataset import Dataset
from sandbox.device import Device, find_device
from sandbox.engines import Engine
from sandbox.failure import Faulted
from sandbox.measure import measure, preview
from sandbox.oversee import Cancelled
from sandbox.profile import STOLEN_CPU, Limits
from sandbox.ready import ready_engine
from sandbox.sweep import sweep

app = typer.Typer()

ProfileOption = Annotated[str, typer.Option(help="Profile of the dataset: cpu, small or h100.")]
DatasetOption = Annotated[Path | None, typer.Option(help="Folder of a prepared dataset, instead of a profile.")]


@app.command(epilog="Example: autoresearch-org run train.py --profile cpu --budget-s 10 --json")
def run(
    source: Annotated[Path, typer.Argument(help="The train.py to measure.")] = Path("train.py"),
    profile: ProfileOption = "cpu",
    dataset: DatasetOption = None,
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
    data = dataset_of(lab, dataset, profile)
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
    profile: ProfileOption = "cpu",
    dataset: DatasetOption = None,
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
    data = dataset_of(lab, dataset, profile)
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
    profile: ProfileOption = "cpu",
    dataset: DatasetOption = None,
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
        data = dataset_of(lab, dataset, profile)
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


def read_source(path: Path) -> str:
    """Text of a train.py. Raises BadInput if it has none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None


def dataset_of(lab: Lab, folder: Path | None, profile: str) -> Dataset:
    """The dataset in a folder, if one is given, else that which was prepared in this profile; where none was, the offline one, which is
    then made."""
    if folder is not None:
        return Dataset.open(folder)
    if profile not in ("cpu", "small", "h100"):
        raise BadInput(f"--profile {profile}: allowed are cpu, small, h100")
    try:
        return Dataset.open(lab.dataset_of_profile(profile))
    except MissingComponent:
        return ensure_dataset(lab, Data.model_validate({"corpus": "python", "profile": profile}), err)


def checked_engine(
    lab: Lab, name: str, device: Device, *, image: str | None, runtime: str | None, strict: bool
) -> Engine:
    """An engine that holds, and nothing left of runs that died. As sandbox.ready, saying what takes a moment."""
    with err.status("checking the sandbox"):
        engine = ready_engine(name, device, state_dir=lab.state, image=image, runtime=runtime, strict=strict)
    sweep([engine], lab.state)
    return engine
