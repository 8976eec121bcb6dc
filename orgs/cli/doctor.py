"""The command of orgs/doctor.py."""

import json
from pathlib import Path
from typing import Annotated

import typer

from orgs.cli.console import err, out
from orgs.cli.options import (
    DeviceOption,
    EngineOption,
    ImageOption,
    JsonOption,
    LabOption,
    RedisOption,
    RuntimeOption,
    sandbox_settings,
)
from orgs.doctor import Examination, Level, render
from orgs.lab import Lab
from records import MissingComponent

app = typer.Typer()


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
