"""What a person sees of a campaign: true rows, a plot that opens, and titles that are never markup."""

import io
from pathlib import Path

import matplotlib.image
from rich.console import Console

from orgs.report import outcome, plot, tabulate
from tests.orgs.rows import NIGHT


def shown(width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(tabulate(NIGHT))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_has_a_row_for_each_experiment_with_score_state_and_reason():
    lines = shown().splitlines()
    assert any("start" in line and "2.5000" in line for line in lines)
    assert any("merged" in line and "2.4000" in line and "because" in line for line in lines)
    assert any("crashed" in line and "crash: ValueError: no" in line for line in lines)
    assert any("refused" in line and "only a seed differs" in line for line in lines)


def test_titles_written_by_minds_are_never_read_as_markup():
    text = shown()
    assert "[red]evil[/red]" in text and "[link=file:///etc]" in text


def test_the_plot_is_a_picture_and_survives_titles_that_look_like_formulas(tmp_path: Path):
    path = tmp_path / "progress.png"
    plot(NIGHT, path, r"night $\broken{")
    picture = matplotlib.image.imread(path)
    assert picture.shape[0] > 400 and picture.std() > 0.01


def test_a_single_scored_experiment_can_be_plotted(tmp_path: Path):
    plot(NIGHT[:1], tmp_path / "one.png", "one")
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_why_an_experiment_ended_is_said_for_every_end():
    assert all(outcome(row) for row in NIGHT)
