"""The digest puts every experiment where a planner looks for it."""

from agents.digest import DEAD_ENDS, NEAR_MISSES, Incumbent, fit, summarise, tokens_of
from agents.knobs import set_knobs
from records import Experiment, Failure, FailureKind, Hypothesis, Review, State
from tests.agents.sources import CAMPAIGN, PROFILE, TRAIN, experiment, measurement

CHAMPION = Incumbent(commit="a" * 40, val_bpb=2.0, source=TRAIN)
IDEA = Hypothesis(title="an idea", change="c")


def test_an_empty_campaign_has_an_empty_digest() -> None:
    digest = summarise(CAMPAIGN, CHAMPION, [], "program", "guidance")
    assert (digest.merges, digest.near_misses, digest.dead_ends, digest.in_flight, digest.counts) == (
        [],
        [],
        [],
        [],
        {},
    )
    assert (digest.program, digest.guidance, digest.budget_s) == ("program", "guidance", 20.0)


def test_the_baseline_is_no_merge() -> None:
    rows = [experiment(1, State.MERGED, IDEA, source=TRAIN, bpb=2.0)]
    digest = summarise(CAMPAIGN, CHAMPION, rows, "", "")
    assert digest.merges == []
    assert digest.counts == {"merged": 1}


def test_merges_stand_in_order_and_near_misses_best_first() -> None:
    rows = [experiment(id, State.MERGED, IDEA, bpb=2.0 - id / 100) for id in (2, 3)]
    rows += [experiment(id, State.DISCARDED, IDEA, bpb=2.5 - id / 100) for id in range(4, 30)]
    digest = summarise(CAMPAIGN, CHAMPION, rows, "", "")
    assert [row.id for row in digest.merges] == [2, 3]
    assert digest.merges[0].delta_bpb < 0
    assert [row.id for row in digest.near_misses] == list(range(29, 29 - NEAR_MISSES, -1))


def test_dead_ends_say_why_on_one_capped_line_newest_first() -> None:
    crashed = measurement("0" * 64, None).model_copy(
        update={"status": "crash", "failure": Failure(kind=FailureKind.CRASH, message="boom\x1b[2J\n" + "x" * 900)}
    )
    rows = [
        experiment(2, State.CRASHED, IDEA).model_copy(update={"measurements": [crashed]}),
        experiment(3, State.REFUSED, IDEA).model_copy(
            update={"review": Review(approved=False, code="no_op", reason="Same program.")}
        ),
        experiment(4, State.STALE, IDEA).model_copy(update={"note": "parent moved"}),
    ]
    ends = summarise(CAMPAIGN, CHAMPION, rows, "", "").dead_ends
    assert [end.id for end in ends] == [4, 3, 2]
    assert [end.reason for end in ends[:2]] == ["parent moved", "Same program."]
    assert ends[2].reason.startswith("crash: boom")
    assert len(ends[2].reason) < 250
    assert not set(ends[2].reason) & {"\n", "\x1b"}


def test_only_the_newest_dead_ends_are_kept() -> None:
    rows = [experiment(id, State.STALE, IDEA) for id in range(2, 2 + 2 * DEAD_ENDS)]
    ends = summarise(CAMPAIGN, CHAMPION, rows, "", "").dead_ends
    assert len(ends) == DEAD_ENDS
    assert ends[0].id == rows[-1].id


def test_what_is_under_way_is_listed_with_its_state() -> None:
    source = set_knobs(TRAIN, {"MATRIX_LR": 0.05}, PROFILE)
    rows = [experiment(2, State.RUNNING, IDEA, source=source), experiment(3, State.PROPOSED, IDEA)]
    rows.append(experiment(4, State.DUPLICATE, IDEA))
    pending = summarise(CAMPAIGN, CHAMPION, rows, "", "").in_flight
    assert [(row.id, row.state) for row in pending] == [(2, "running"), (3, "proposed")]


def test_constants_that_were_changed_alone_are_summed_up() -> None:
    def turn(id: int, bpb: float, **knobs: float) -> Experiment:
        return experiment(id, State.DISCARDED, IDEA.model_copy(update={"knobs": knobs}), bpb=bpb)

    rows = [turn(2, 2.1, MATRIX_LR=0.1), turn(3, 2.02, MATRIX_LR=0.05), turn(4, 1.9, MATRIX_LR=0.03, DEPTH=2)]
    (found,) = summarise(CAMPAIGN, CHAMPION, rows, "", "").constants
    assert (found.name, found.tries, found.best) == ("MATRIX_LR", 2, 0.05)
    assert round(found.delta_bpb, 6) == 0.02


def test_a_plateau_names_the_categories_that_have_had_their_turn() -> None:
    def missed(id: int, category: str, state: State = State.DISCARDED) -> Experiment:
        idea = IDEA.model_copy(update={"category": category})
        return experiment(id, state, idea, bpb=2.1).model_copy(update={"updated_at": f"2026-01-01T00:00:{id:02}+00:00"})

    rows = [missed(2, "batch"), missed(3, "schedule", State.MERGED), missed(4, "speed"), missed(5, "optimizer")]
    digest = summarise(CAMPAIGN, CHAMPION, rows, "", "", plateau=2)
    assert (digest.misses, digest.stale_categories) == (2, ["optimizer", "speed"])
    assert summarise(CAMPAIGN, CHAMPION, rows, "", "", plateau=3).stale_categories == []


def test_a_digest_that_is_too_long_loses_its_least_telling_rows_first() -> None:
    rows = [experiment(id, State.STALE, IDEA) for id in range(2, 12)]
    rows += [experiment(id, State.DISCARDED, IDEA, bpb=2.0 + id / 100) for id in range(20, 30)]
    rows += [experiment(id, State.MERGED, IDEA, bpb=2.0) for id in (40, 41)]
    whole = summarise(CAMPAIGN, CHAMPION, rows, "", "")
    size = sum(tokens_of(row) for row in (*whole.dead_ends, *whole.near_misses, *whole.merges))
    assert fit(whole, size) == whole
    shorter = fit(whole, size - 1)
    assert (len(shorter.dead_ends), shorter.dead_ends[0].id, shorter.omitted) == (9, 11, 1)
    shortest = fit(whole, 1)
    assert (
        [r.id for r in shortest.dead_ends],
        [r.id for r in shortest.near_misses],
        [r.id for r in shortest.merges],
    ) == ([11], [20], [41])
    assert shortest.omitted == 9 + 9 + 1
