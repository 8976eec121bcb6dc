"""What a person sees of a campaign: true rows, a plot that opens, and titles that are never markup."""

import io
from pathlib import Path

import matplotlib.image
import pytest
from rich.console import Console

from orgs.plot import plot, vertical_range
from orgs.report import explain_state, tabulate
from records import Experiment, State
from tests.orgs.rows import NIGHT, experiment


def shown(width: int = 200) -> str:
    terminal = io.StringIO()
    Console(file=terminal, width=width).print(tabulate(NIGHT))
    return terminal.getvalue()


def test_the_table_has_a_row_for_each_experiment_with_score_distance_state_and_reason() -> None:
    lines = shown().splitlines()
    assert any("start" in line and "2.5000" in line for line in lines)
    assert any("merged" in line and "2.4000" in line and "-0.1000" in line for line in lines)
    assert any("discarded" in line and "2.6000" in line and "+0.1000" in line for line in lines)
    assert any("crashed" in line and "crash: ValueError: no" in line for line in lines)
    assert any("refused" in line and "only a seed differs" in line for line in lines)


def test_the_table_fits_a_narrow_terminal() -> None:
    assert max(len(line) for line in shown(80).splitlines()) <= 80
    assert "very long" in shown(80)


def test_the_champions_staircase_and_most_scores_fit_the_plot() -> None:
    bottom, top = vertical_range([2.5, 2.6, 2.4, 2.45, 2.55, 2.5, 2.5, 2.5, 2.5, 2.5, 9.9], [2.5, 2.4])
    assert bottom < 2.4 and 2.6 < top < 9.9


def test_titles_written_by_minds_are_never_read_as_markup() -> None:
    text = shown()
    assert "[red]evil[/red]" in text and "[link=file:///etc]" in text


def test_the_plot_is_a_picture_and_survives_titles_that_look_like_formulas(tmp_path: Path) -> None:
    path = tmp_path / "progress.png"
    plot(NIGHT, path, r"night $\broken{")
    picture = matplotlib.image.imread(path)
    assert picture.shape[0] > 400 and picture.std() > 0.01


def test_a_single_scored_experiment_can_be_plotted(tmp_path: Path) -> None:
    plot(NIGHT[:1], tmp_path / "one.png", "one")
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_why_an_experiment_ended_is_said_for_every_end() -> None:
    assert all(row.why for row in NIGHT)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (NIGHT[0], "commit cccccccccc as it stands: 2.500000 bpb is what experiments had to beat"),
        (NIGHT[1], "lost: because"),
        (NIGHT[2], "never came to a score: crash: ValueError: no"),
        (NIGHT[3], "won, and landed as cccccccccc: because"),
        (NIGHT[5], "could not be carried out: only a seed differs"),
        (experiment(6, State.PROPOSED, None, note="rebase: champion moved"), "waits for a coder (before: rebase: champion moved)"),
        (experiment(7, State.SCORED, 2.3, verdict=None), "measured 2.300000 bpb, and waits for its verdict"),
    ],
)  # fmt: skip
def test_a_sentence_says_why_it_stands_where_it_stands(row: Experiment, sentence: str) -> None:
    assert explain_state(row) == sentence


@pytest.mark.parametrize("state", State)
def test_there_is_a_sentence_for_every_state(state: State) -> None:
    assert explain_state(experiment(8, state, 2.3))
