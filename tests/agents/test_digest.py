"""The digest puts every experiment where a planner looks for it."""

from agents.digest import DEAD_ENDS, NEAR_MISSES, Incumbent, summarise
from agents.knobs import set_knobs
from records import Failure, FailureKind, Hypothesis, Review, State
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
