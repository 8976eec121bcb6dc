"""What roles would be told, and whether their files are right."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from agents.fence import one_line
from orgs.cli.console import EXIT_CODES, out
from orgs.cli.opening import ledger_if_any
from orgs.cli.options import JsonOption, LabOption, RedisOption
from orgs.lab import Lab
from orgs.orgfile import OrgFile, RoleName
from orgs.prompts import render as render_role
from orgs.report_minds import explain_prompt, parts_of
from orgs.role_check import check_lab, check_org
from orgs.role_check import shown as shown_path
from records import BadInput

app = typer.Typer(
    no_args_is_help=True, epilog=EXIT_CODES, help="What roles would be told, and whether their files are right."
)


@app.command("show", epilog="Example: autoresearch-org roles show planner --org orgs/trio.toml --count")
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


@app.command("check", epilog="Example: autoresearch-org roles check --org orgs/trio.toml --json")
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
        out.print(Text(f"{mark} ", style=style) + Text(one_line(f"{where}: {one.says}", 1000)), soft_wrap=True)
    if any(one.outcome == "wrong" for one in found):
        raise typer.Exit(BadInput.exit_code)
