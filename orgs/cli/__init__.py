"""The command line. Every command prints data with --json, and ends with a documented exit code.

A file is named for its commands, and what a command does is mostly in the file of that name one folder up:

`run`            run, audit, preflight: one train.py, with no org
`launch`         launch, resume
`doctor`         doctor
`status`         status
`report`         report
`simulate`       simulate
`ledger_show`    ledger list, show, cost, forecasts
`ledger_replay`  ledger replay
`ledger_keep`    ledger export, import, rebuild, backup, restore, verify
`receipts`       receipt show, verify
`roles`          roles show, check

They share `options`, `console` (where they print, and the exit codes) and `opening` (the ledger of a campaign).
"""

import sys
from typing import NoReturn

import typer
from redis import RedisError
from redis.exceptions import NoPermissionError
from rich.text import Text

from orgs.cli import (
    doctor,
    launch,
    ledger_keep,
    ledger_replay,
    ledger_show,
    receipts,
    report,
    roles,
    run,
    simulate,
    status,
)
from orgs.cli.console import EXIT_CODES, err
from records import Refusal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    epilog=EXIT_CODES,
    help="A research organisation that improves train.py while you sleep, and measures honestly.",
)
for file in (run, launch, doctor, status, report, simulate):
    app.add_typer(file.app)

ledger_app = typer.Typer(
    no_args_is_help=True, epilog=EXIT_CODES, help="Look into the ledger: what was tried, and what became of it."
)
for file in (ledger_show, ledger_replay, ledger_keep):
    ledger_app.add_typer(file.app)
app.add_typer(ledger_app, name="ledger")
app.add_typer(receipts.app, name="receipt")
app.add_typer(roles.app, name="roles")


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
