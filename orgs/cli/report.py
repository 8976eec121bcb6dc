"""The plot of a campaign, and its headline on the test split."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ledger.champion import Champion
from orgs.again import Conditions, cancelled_by_signals
from orgs.cli.console import err, out
from orgs.cli.opening import bench_of, ledger_of
from orgs.cli.options import CampaignOption, LabOption, RedisOption, StolenOption
from orgs.cli.status import status_of, tell_headline
from orgs.headline import measure_headline, why_none
from orgs.lab import Lab
from orgs.view import Snapshot
from records import BadInput, State
from sandbox.profile import STOLEN_CPU
from sandbox.receipt import Key

app = typer.Typer()


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
