"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from orgs.orgfile import SandboxSettings, explain
from records import BadInput

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


def sandbox_settings(**options: object) -> SandboxSettings:
    """Options of a command as an org file would have them. Raises BadInput that names the first that is wrong."""
    try:
        return SandboxSettings.model_validate(options)
    except ValidationError as error:
        raise BadInput(f"--{explain(error)}") from None
