"""What a person sees of a campaign: true rows, a plot that opens, and titles that are never markup."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.image
import pytest
from rich.console import Console

from orgs.figures import figures_of
from orgs.plot import plot, points_of, vertical_range
from orgs.report import explain_state, tabulate
from orgs.view import Snapshot, champion_line, draw
from records import Experiment, State
from tests.ledger.samples import campaign
from tests.orgs.rows import NIGHT, experiment, measurement


def shown(width: int = 200, rows: Sequence[Experiment] = NIGHT) -> str:
    terminal = io.StringIO()
    figures = figures_of(rows, (row for row in rows if row.repeats is not None))
    Console(file=terminal, width=width).print(tabulate(rows, figures=figures))
    return terminal.getvalue()


def again(id: int, of: int, bpb: float) -> Experiment:
    """One more run of a champion."""
    run = measurement(bpb).model_copy(update={"run_id": f"again-{id}"})
    title = f"champion again (#{of})"
    return experiment(id, State.POOLED, bpb, title, lane="repeat", repeats=of, verdict=None, measurements=[run])


CONFIRMED = [*NIGHT, again(6, 3, 2.41), again(7, 3, 2.43), again(8, 0, 2.52)]
"""The same night: the second champion was run twice more, the start once."""


def test_the_table_has_a_row_for_each_experiment_with_score_distance_state_and_reason() -> None:
    lines = shown().splitlines()
    assert any("start" in line and "2.5000" in line for line in lines)
    assert any("merged" in line and "2.4000*" in line and "-0.1000" in line for line in lines)
    assert any("discarded" in line and "2.6000" in line and "+0.1000" in line for line in lines)
    assert any("crashed" in line and "crash: ValueError: no" in line for line in lines)
    assert any("refused" in line and "only a seed differs" in line for line in lines)


def test_what_is_claimed_is_the_mean_of_fresh_runs_and_marked_where_there_is_none() -> None:
    assert "* claimed by the runs that selected it; it has no fresh one" in shown()
    lines = shown(rows=CONFIRMED).splitlines()
    assert any("merged" in line and "2.4200 " in line for line in lines), "not the 2.4 that it won by"
    assert any("start" in line and "2.5100 " in line for line in lines), "its first run selected nothing"
    assert any("champion again (#3)" in line and "2.4100" in line and "pooled" in line for line in lines)
    assert not any("*" in line for line in lines)


def test_the_live_view_claims_the_same() -> None:
    def line(rows: Sequence[Experiment]) -> str:
        return champion_line(Snapshot(campaign("night"), rows, NIGHT[3], [], 0.0)).plain

    assert line(NIGHT).startswith("2.4000 bpb  claimed by its selecting runs  -0.1000 since the start  (#3 ")
    assert line(CONFIRMED).startswith("2.4200 bpb  2 fresh runs  -0.0900 since the start  (#3 ")


def test_the_live_view_shows_ideas_alone_and_says_what_goes_on_after_them() -> None:
    terminal = io.StringIO()
    waits = experiment(9, State.CONFIRMING, 2.2, "the next")
    panel = draw(
        Snapshot(campaign("night"), [*CONFIRMED, waits], NIGHT[3], [], 0.0), None, "headline, run 1 of 8", 61.0
    )
    Console(file=terminal, width=200).print(panel)
    text = terminal.getvalue()
    assert "headline, run 1 of 8" in text and "4 judged, 1 merged" in text and "1:01 here" in text
    assert "#9 the next (confirming (run 2))" in text and "champion again" not in text


def test_one_that_is_run_again_is_shown_with_the_number_of_that_run() -> None:
    waits = experiment(9, State.CONFIRMING, 2.2)
    assert "confirming (run 2)" in shown(rows=[waits])
    assert "running (run 2)" in shown(rows=[waits.model_copy(update={"state": State.RUNNING})])
    assert "running (run" not in shown(rows=[experiment(9, State.RUNNING, 2.2, measurements=[])])


def test_the_plot_has_one_point_an_idea_and_a_mark_for_each_repeat_beside_its_champion() -> None:
    ideas, repeats = points_of(CONFIRMED)
    assert [(p.experiment.id, p.bpb) for p in ideas] == [(0, 2.51), (1, 2.6), (3, pytest.approx(2.42)), (4, 9.9)]
    places = {p.experiment.id: p.x for p in ideas}
    assert [(p.x, p.bpb) for p in repeats] == [(places[3], 2.41), (places[3], 2.43), (places[0], 2.52)]


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
    plot(CONFIRMED, path, r"night $\broken{")
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
