"""Figures of the merge rules: what they find, what they get wrong, what a night claims. A file of its own, as orgs/plot.py."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ledger.rules import RULES
from orgs.simulate import Night, Simulation
from orgs.trials import (
    EFFECTS,
    JUDGED,
    Chance,
    compute_power,
    judgements,
    simulate_false_merges,
    simulate_power,
)
from records import BadInput

# Okabe and Ito's colours, which colour-blind people tell apart; the shapes say the same again.
COLOURS = dict(zip(RULES, ("#0072B2", "#E69F00", "#009E73", "#777777"), strict=True))
MARKERS = dict(zip(RULES, "osD^", strict=True))
PROMISE = "#D55E00"
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:g} %")


def ensure_folder(folder: Path) -> None:
    """Make a folder for figures. Raises BadInput if there can be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--plots {folder}: is no folder to write to: {error.strerror}") from None


def draw_curves(folder: Path, nights: Mapping[str, Sequence[Night]], simulation: Simulation, world: str) -> list[Path]:
    """Simulate and draw all figures.

    Args:
        folder: exists; figures of the same names are replaced.
        nights: those of each rule to draw, by its name.
        simulation: that they come from; the curves take its noise, its error budget, its runs of the start, and as
            many trials a point as it has nights.
        world: the name of its effects.

    Returns:
        The PNGs that were written.
    """
    false_merges = {
        tails: {rule: simulate_false_merges(rule, replace(simulation, tails=tails)) for rule in nights}
        for tails in ("normal", "t5")
    }
    figures = {
        "power.png": draw_power({rule: simulate_power(rule, simulation) for rule in nights}, simulation),
        "false-merges.png": draw_false_merges(false_merges, simulation),
        "gains.png": draw_gains(nights, simulation, world),
    }
    for name, figure in figures.items():
        figure.savefig(folder / name)
        plt.close(figure)
    return [folder / name for name in figures]


def draw_power(chances: Mapping[str, Sequence[Chance]], simulation: Simulation) -> Figure:
    """The chance that a candidate merges against its true effect."""
    figure, axes = plt.subplots(figsize=(8, 5.2), dpi=110, layout="constrained")
    handles = []
    for rule, found in chances.items():
        computed = rule == "two-run-min"
        draw_chances(axes, EFFECTS, found, rule, joined=not computed)
        if computed:
            axes.plot(EFFECTS, compute_power(simulation), color=COLOURS[rule], lw=1.8)
        name = f"{rule}: computed for normal noise (line), simulated (points)" if computed else f"{rule}: simulated"
        handles.append(handle(rule, name))
    runs = simulation.baseline_runs
    entitle(
        figure,
        "Power: the chance that an improvement is merged",
        f"α = {simulation.alpha:g} over K = {judgements(simulation)} judgements, {simulation.tails} noise; champion and "
        f"σ from {runs} runs (ν = {runs - 1}), under keep-if-lower from one\n"
        f"{simulation.nights} candidates a point, bars: 95 % intervals",
    )
    axes.set_xlabel("true effect of the candidate, σ of one run")
    axes.set_ylabel("chance of a merge")
    axes.set_xlim(-0.15, EFFECTS[-1] + 0.15)
    axes.set_ylim(-0.02, 1.03)
    axes.yaxis.set_major_formatter(PERCENT)
    bpb = axes.secondary_xaxis(
        "top", functions=(lambda x: np.multiply(x, simulation.sigma), lambda x: np.divide(x, simulation.sigma))
    )
    bpb.set_xlabel(f"bits per byte, for σ = {simulation.sigma:g}", fontsize=8.5)
    bpb.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return figure


def draw_false_merges(panels: Mapping[str, Mapping[str, Sequence[Chance]]], simulation: Simulation) -> Figure:
    """The chance of any false merge in a night against the number of candidates, a panel for each kind of noise."""
    figure, row = plt.subplots(1, len(panels), figsize=(9, 4.8), dpi=110, sharey=True, layout="constrained")
    for axes, (tails, chances) in zip(row, panels.items(), strict=True):
        for place, (rule, found) in enumerate(chances.items()):
            beside = [count * 1.035 ** (place - (len(chances) - 1) / 2) for count in JUDGED]  # bars do not hide bars
            draw_chances(axes, beside, found, rule, joined=True, floor=0.5 / simulation.nights)
        axes.axhline(simulation.alpha, color=PROMISE, lw=1.6, ls="--")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(0.4 / simulation.nights, 1.3)
        axes.xaxis.set_major_locator(FixedLocator(JUDGED))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.yaxis.set_major_formatter(PERCENT)
        axes.set_xlabel("candidates judged in the night, none with an effect (K)")
        axes.text(0.03, 0.82, f"{tails} noise", transform=axes.transAxes, fontsize=11)
        axes.grid(alpha=0.25)
    row[0].set_ylabel("chance of any false merge")
    handles = [handle(rule, rule) for rule in next(iter(panels.values()))]
    handles.append(Line2D([], [], color=PROMISE, lw=1.6, ls="--", label=f"promised: α = {simulation.alpha:g}"))
    runs = simulation.baseline_runs
    entitle(
        figure,
        "False merges: the chance of any in a night in which nothing works",
        f"thresholds for each K; champion and σ from {runs} runs (ν = {runs - 1}), under keep-if-lower from one\n"
        f"{simulation.nights} nights a point, bars: 95 % intervals; none seen is drawn as half of one",
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8.5)
    return figure


def draw_gains(nights: Mapping[str, Sequence[Night]], simulation: Simulation, world: str) -> Figure:
    """What each rule's nights gained in truth, and beside it what they claim."""
    figure, axes = plt.subplots(figsize=(8, 4.8), dpi=110, layout="constrained")
    names = []
    for place, (rule, made) in enumerate(nights.items()):
        true = [night.gain_bpb for night in made]
        claimed = [night.gain_bpb + night.inflation_bpb for night in made]
        draw_box(axes, place - 0.17, true, COLOURS[rule], filled=True)
        draw_box(axes, place + 0.17, claimed, COLOURS[rule], filled=False)
        names.append(f"{rule}\n{round(fmean(claimed) - fmean(true), 5) + 0.0:+.5f}")
    axes.set_xticks(range(len(nights)), names)
    axes.set_xlim(-0.6, len(nights) - 0.4)
    axes.set_ylabel("gain of a night, bits per byte")
    axes.axhline(0, color="black", lw=0.8)
    axes.grid(axis="y", alpha=0.25)
    entitle(
        figure,
        "Gains: what is true of a night, and what it claims",
        f"{simulation.nights} nights of {simulation.experiments} runs, effects {world}, σ = {simulation.sigma:g} bpb, "
        f"{simulation.tails} noise, α = {simulation.alpha:g}\n"
        "box: the middle half of the nights, whiskers: 5 to 95 %; below each rule: claim less truth, on average",
    )
    handles = [
        Patch(facecolor="#888888", edgecolor="black", label="true gain"),
        Patch(facecolor="white", edgecolor="black", hatch="////", label="claimed gain"),
        Line2D([], [], color="black", lw=1.2, label="median"),
        Line2D([], [], color="black", lw=0, marker="D", markersize=5, label="mean"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8.5)
    return figure


# ---- what they share -------------------------------------------------------------------------------------------------


def entitle(figure: Figure, title: str, conditions: str) -> None:
    """A heading, and in smaller print what was simulated."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    figure.axes[0].set_title(conditions, loc="left", fontsize=8.5, parse_math=False)


def draw_chances(
    axes: Axes, xs: Sequence[float], chances: Sequence[Chance], rule: str, *, joined: bool, floor: float = 0.0
) -> None:
    """Points with their 95 % intervals, none of them below `floor`."""
    estimates = [max(chance.estimate, floor) for chance in chances]
    below = [max(0.0, estimate - chance.interval()[0]) for estimate, chance in zip(estimates, chances, strict=True)]
    above = [max(0.0, chance.interval()[1] - estimate) for estimate, chance in zip(estimates, chances, strict=True)]
    axes.errorbar(
        xs,
        estimates,
        yerr=(below, above),
        color=COLOURS[rule],
        marker=MARKERS[rule],
        markersize=4.5,
        lw=1.4 if joined else 0,
        elinewidth=1,
        zorder=3 - list(RULES).index(rule) / 10,  # the default on top
    )


def draw_box(axes: Axes, place: float, values: Sequence[float], colour: str, *, filled: bool) -> None:
    """A box of quartiles with whiskers at 5 and 95 %, and the mean."""
    drawn = axes.boxplot(
        [values],
        positions=[place],
        widths=0.28,
        whis=(5, 95),
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        manage_ticks=False,
        medianprops={"color": "black", "lw": 1.2},
        meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "black", "markeredgecolor": "white"},
    )
    (box,) = drawn["boxes"]
    box.set(facecolor=colour if filled else "white", edgecolor="black" if filled else colour)
    if not filled:
        box.set_hatch("////")


def handle(rule: str, label: str) -> Line2D:
    return Line2D([], [], color=COLOURS[rule], marker=MARKERS[rule], markersize=5, lw=1.6, label=label)
