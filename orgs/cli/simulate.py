"""The merge rules on a virtual GPU."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ledger.rules import RULES
from orgs.cli.console import err, out
from orgs.cli.options import JsonOption
from orgs.effects import SIGMA, read_effects
from orgs.report import tabulate_simulation
from orgs.simulate import Simulation, simulate_nights, summarise_nights

app = typer.Typer()


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
