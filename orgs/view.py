"""The live view of a campaign: one panel on a terminal, one line per event everywhere else."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ledger import Ledger, Running
from ledger.store import RESULTS
from orgs.figures import Figure, figures_of, score_of
from orgs.report import delta_bpb, name_state, plain, tabulate
from records import Campaign, Event, Experiment, State

WAITING = (State.PROPOSED, State.CLAIMED, State.CODED, State.QUEUED, State.CONFIRMING)


@dataclass(frozen=True)
class Snapshot:
    """What the ledger says of a campaign at one moment."""

    campaign: Campaign
    experiments: Sequence[Experiment]
    champion: Experiment | None
    running: Sequence[Running]
    device_minutes: float

    @classmethod
    def read(cls, ledger: Ledger) -> "Snapshot":
        champion, minutes = ledger.champion_experiment(), ledger.spent().device_s / 60
        return cls(ledger.campaign(), ledger.experiments(), champion, ledger.running(), minutes)

    @property
    def start(self) -> Experiment | None:
        return next((e for e in self.experiments if e.lane == "baseline" and e.state == State.MERGED), None)

    @cached_property
    def figures(self) -> dict[int, Figure]:
        """By id, what is claimed of those that won."""
        return figures_of(self.experiments, (e for e in self.experiments if e.repeats is not None))

    @property
    def judged(self) -> list[Experiment]:
        """Experiments that had their turn on the device and ended, newest last. The baseline is not one of them."""
        ended = [e for e in self.experiments if e.is_idea and e.state in RESULTS]
        return sorted(ended, key=lambda e: e.updated_at)

    @property
    def waiting(self) -> list[Experiment]:
        return [e for e in self.experiments if e.state in WAITING]


VOID = frozenset({f"{State.RUNNING}→{State.QUEUED}", f"{State.RUNNING}→{State.CONFIRMING}"})
"""Events of runs that count for nothing: the host failed, or the runner is gone."""


class View(Protocol):
    """Shows a running campaign."""

    def say(self, line: str) -> None: ...
    def event(self, event: Event, ledger: Ledger) -> None: ...
    def update(self, ledger: Ledger, goal: int | None, notice: str | None) -> None: ...


class Lines:
    """For logs and pipes: one line per event that a person wants to read."""

    SHOWN = frozenset({State.RUNNING, State.CONFIRMING, *(state for state in State if state.final)})

    def __init__(self, console: Console):
        self.console = console

    def say(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)

    def event(self, event: Event, ledger: Ledger) -> None:
        state = event.kind.rpartition("→")[2]
        void = event.kind in VOID
        if event.experiment is None or not (void or state in self.SHOWN):
            return
        experiment = ledger.experiment(event.experiment)
        ended = "" if state == State.RUNNING else result(experiment)
        told = f"void, and run again: {plain(event.detail)}" if void else f"{state}{ended}"
        self.say(f"{event.at[11:19]} #{experiment.id} {plain(experiment.hypothesis.title)}: {told}")

    def update(self, ledger: Ledger, goal: int | None, notice: str | None) -> None:
        """Nothing to redraw."""


def result(experiment: Experiment) -> str:
    """What an experiment that has ended came to, as the end of a line."""
    score, delta = score_of(experiment), delta_bpb(experiment)
    if score is None:
        return f" ({plain(experiment.why)})" if experiment.why else ""
    return f" {score:.4f}" + ("" if delta is None else f" ({delta:+.4f})")


class Screen:
    """For terminals: a panel that is redrawn four times a second."""

    def __init__(self, live: Live):
        self.live = live
        self.started = time.monotonic()

    def say(self, line: str) -> None:
        self.live.console.print(Text(line, style="dim"))

    def event(self, event: Event, ledger: Ledger) -> None:
        """The panel shows the state itself."""

    def update(self, ledger: Ledger, goal: int | None, notice: str | None) -> None:
        self.live.update(draw(Snapshot.read(ledger), goal, notice, time.monotonic() - self.started))


@contextmanager
def watch(console: Console) -> Iterator[View]:
    """A view that fits the console; the terminal is restored on the way out."""
    if not console.is_terminal:
        yield Lines(console)
        return
    # Gone at the end: the table of the campaign takes its place.
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield Screen(live)


def draw(snapshot: Snapshot, goal: int | None, notice: str | None, elapsed_s: float) -> RenderableType:
    """The whole panel.

    Args:
        snapshot: the campaign.
        goal: experiments that it may judge; None when it has ended.
        notice: what people have to know beside it.
        elapsed_s: since the launch.
    """
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column()
    facts.add_row("champion", champion_line(snapshot))
    facts.add_row("progress", progress_line(snapshot, goal, elapsed_s))
    for running in snapshot.running:
        facts.add_row("now", now_line(snapshot, running))
    if snapshot.waiting:
        waiting = (f"#{e.id} {e.hypothesis.title} ({name_state(e)})" for e in snapshot.waiting)
        facts.add_row("next", plain(" · ".join(waiting)))
    parts: list[RenderableType] = [facts]
    if snapshot.judged:
        parts += [Text(), tabulate(snapshot.judged[-6:], figures=snapshot.figures)]
    if notice:
        parts.append(Text(notice, style="yellow"))
    name = snapshot.campaign.name
    return Panel(
        Group(*parts), title=f"[bold]{name}[/] · branch autoresearch/{name}", title_align="left", border_style="blue"
    )


def champion_line(snapshot: Snapshot) -> Text:
    champion, start = snapshot.champion, snapshot.start
    claimed = None if champion is None else snapshot.figures.get(champion.id)
    if champion is None or claimed is None:
        return Text("measuring the start …", style="dim")
    runs = f"{claimed.runs} fresh run{'s' if claimed.runs > 1 else ''}"
    line = Text(f"{claimed.bpb:.4f} bpb", style="bold green")
    line.append(f"  {runs if claimed.fresh else 'claimed by its selecting runs'}", style="dim")
    before = None if start is None else snapshot.figures.get(start.id)
    if start is not None and champion.id != start.id and before is not None:
        line.append(f"  {claimed.bpb - before.bpb:+.4f} since the start  ", style="green")
        line.append_text(plain(f"(#{champion.id} {champion.hypothesis.title})"))
    return line


def progress_line(snapshot: Snapshot, goal: int | None, elapsed_s: float) -> Text:
    merged = sum(e.state == State.MERGED for e in snapshot.judged)
    minutes, seconds = divmod(int(elapsed_s), 60)
    return Text(
        f"{len(snapshot.judged)}{'' if goal is None else f'/{goal}'} judged, {merged} merged · {snapshot.device_minutes:.1f} device minutes · {minutes}:{seconds:02d} here"
    )


def now_line(snapshot: Snapshot, running: Running) -> RenderableType:
    title = next((e.hypothesis.title for e in snapshot.experiments if e.id == running.experiment), "")
    row = Table.grid(padding=(0, 1))
    cells: list[RenderableType] = [plain(f"#{running.experiment} {title}"), Text(running.phase, style="cyan")]
    if running.progress is not None:
        done = min(running.progress.elapsed_s, snapshot.campaign.budget_s)
        cells += [
            ProgressBar(total=snapshot.campaign.budget_s, completed=done, width=24),
            Text(
                f"{done:.0f}/{snapshot.campaign.budget_s:.0f} s  step {running.progress.step}  loss {running.progress.nats:.3f}"
            ),
        ]
    row.add_row(*cells)
    return row
