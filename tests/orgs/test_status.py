"""What `status` says of a campaign follows from its ledger, digit for digit, and from receipts that are good only."""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

import pytest
import redis
from rich.console import Console
from scipy.stats import chi2, norm, shapiro

from ledger import Ledger
from ledger.lease import acquire
from ledger.server import open_redis
from orgs.report import show_status
from orgs.status import Results, Status, counts_line, look_at_tails, read_status
from records import FailureKind, Measurement, Policy, Verdict
from tests.ledger.org import BASELINE, Org
from tests.ledger.samples import BASE, campaign, failed, headline_run, program, scored
from tests.orgs.lab import run

NEXT = "c" * 40
PROMISE = Policy(rule="two-run-min", judgements=20, alpha=0.1)
START = [1.0, 1.0021, 0.9985, 1.0008, 0.9991, 1.0012, 0.9978, 1.0003]
"""Runs of the start."""
LATER = [0.9701, 0.9712]
"""Fresh runs of what won over it, by 0.96 and 0.961."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with open_redis(tmp_path_factory.mktemp("r")) as server:
        yield server.client


def complaint(measurement: Measurement) -> str | None:
    return "it is forged" if measurement.run_id.startswith("forged") else None


def verdict(**more: object) -> Verdict:
    given: dict[str, object] = {"merge": False, "rule": "r", "champion_bpb": 1.0, "candidate_bpb": 0.96, "reason": "so"}
    return Verdict.model_validate(given | more)


class Played:
    """A campaign that is played by hand."""

    def __init__(self, client: redis.Redis, policy: Policy):
        client.flushall()
        self.ledger = Ledger(client, "night")
        self.ledger.create(campaign("night", policy=policy))
        self.org = Org(self.ledger, acquire(client, "cpu", "runner", 600.0))
        self.relay = self.org.relay()
        self.org.baseline(START[0])

    def repeat(self, bpb: float, champion: int = 1, base: str = BASE, source: str = BASELINE, category: str = "repeat", run_id: str = "") -> None:  # fmt: skip
        asked = sum(of == champion for of in self.ledger.repeats().values())
        id = self.ledger.propose_repeat(program(source, base), champion, asked, category)
        assert id is not None and self.org.take(base) == id
        self.ledger.record(id, self.org.lease, scored(source, bpb, run_id))
        self.ledger.pool(id)

    def merge(self, source: str, bpb: float) -> int:
        id = self.org.scored(source, bpb)
        self.org.intend(id, verdict(merge=True, candidate_runs=[f"run-{id}"]), NEXT)
        self.ledger.merged(id, self.relay, NEXT, self.ledger.outbox()[str(id)])
        return id

    def status(self) -> Status:
        return read_status(self.ledger, complaint)


@pytest.fixture
def night(client: redis.Redis) -> Played:
    """With a promise: 8 runs of the start, one idea discarded, one within the noise, one crashed, one merged and run twice more."""
    night = Played(client, PROMISE)
    org, ledger = night.org, night.ledger
    for bpb in START[1:]:
        night.repeat(bpb)
    ledger.discard(org.scored("worse\n", 1.1), verdict())
    ledger.discard(org.scored("same\n", 1.0), verdict(within_noise=True))
    id = org.running("broken\n")
    ledger.record(id, org.lease, failed("broken\n", FailureKind.ENGINE_LOST, "void"))
    assert org.take(BASE) == id
    ledger.record(id, org.lease, failed("broken\n", FailureKind.OOM))
    best = night.merge("best\n", 0.96)
    for bpb in LATER:
        night.repeat(bpb, best, NEXT, "best\n")
    return night


def shown(status: Status) -> str:
    terminal = io.StringIO()
    Console(file=terminal, width=400).print(show_status(status))
    return terminal.getvalue()


# ---- with a promise --------------------------------------------------------------------------------------------------


def test_champion_and_start_are_means_of_fresh_runs_and_never_of_those_that_selected(night: Played) -> None:
    status = night.status()
    s = math.sqrt((7 * stdev(START) ** 2 + stdev(LATER) ** 2) / 8)
    assert status.champion is not None and status.start is not None
    assert (status.champion.bpb, status.champion.runs, status.champion.fresh) == (fmean(LATER), 2, True)
    assert status.start.bpb == pytest.approx(fmean(START)) and status.start.runs == 8
    assert status.champion.std_error_bpb == pytest.approx(s / math.sqrt(2))
    assert status.start.std_error_bpb == pytest.approx(s / math.sqrt(8))


def test_the_noise_says_how_large_it_is_and_what_it_is_known_from(night: Played) -> None:
    noise = night.status().noise
    s = math.sqrt((7 * stdev(START) ** 2 + stdev(LATER) ** 2) / 8)
    assert noise is not None and (noise.freedom, noise.start_runs, noise.later_runs) == (8, 8, 2)
    assert noise.deviation_bpb == pytest.approx(s)
    assert noise.sigma_bpb == pytest.approx(s * math.sqrt(8 / chi2.ppf(0.25, 8)))
    assert (noise.device, noise.dataset) == ("2 × CPU", "1")


def test_the_error_budget_says_what_is_spent_and_what_is_left(night: Played) -> None:
    spending = night.status().spending
    assert (spending.rule, spending.promises, spending.judgements, spending.judged) == ("two-run-min", True, 20, 3)
    assert spending.p1 == pytest.approx(0.1 / 20) and spending.alpha_left == pytest.approx(0.1 - 3 * 0.1 / 20)
    assert "any false merge with 10 % at most; 3 of 20 verdicts spent, 0.5 % each; 8.5 % left" in shown(night.status())


def test_the_last_line_counts_what_became_of_the_ideas(night: Played) -> None:
    status = night.status()
    assert status.results == Results(verified=1, within_noise=1, worse=1, invalid=1, crashed=1)
    assert shown(status).rstrip().endswith("1 verified, 1 within noise, 1 worse, 1 invalid (1 of them crashed)")
    assert status.states == {"merged": 2, "within_noise": 1, "discarded": 1, "pooled": 9, "crashed": 1}


def test_runs_that_the_host_spoilt_are_counted_apart(night: Played) -> None:
    assert night.status().checks.void_runs == 1
    assert "void: 1 measurement failed for the host's reasons" in shown(night.status())


def test_what_simplifications_cost_stands_beside_what_they_may(night: Played) -> None:
    status = night.status()
    assert status.noise is not None
    assert status.checks.lost_bpb == 0.0
    assert status.checks.may_lose_bpb == pytest.approx(PROMISE.simplify_cap * status.noise.sigma_bpb)


def test_a_canary_is_compared_with_the_champions_runs_before_it(night: Played) -> None:
    assert night.status().checks.canary is None
    best = night.ledger.champions()[-1]
    night.repeat(0.9705, best, NEXT, "best\n", "canary")
    quiet = night.status().checks.canary
    assert quiet is not None and quiet.difference_bpb == pytest.approx(0.9705 - fmean(LATER)) and not quiet.off
    night.repeat(1.2, best, NEXT, "best\n", "canary")
    loud = night.status().checks.canary
    assert loud is not None and loud.difference_bpb == pytest.approx(1.2 - fmean(LATER)) and loud.off
    assert loud.bound_bpb == pytest.approx(quiet.bound_bpb)
    night.repeat(0.97, best, NEXT, "best\n")  # a canary stays the last one, whatever is run after it
    assert night.status().checks.canary == loud
    status = night.status()
    assert status.noise is not None and (status.noise.start_runs, status.noise.later_runs) == (8, 5)


def test_every_drift_of_the_history_is_told_though_no_champion_is_left(night: Played) -> None:
    night.ledger.unseat(night.ledger.champions()[-1], "the champion is off by +0.1")
    status = night.status()
    assert status.champion is None and status.noise is None
    (told,) = status.checks.drifts
    assert told.endswith("the champion is off by +0.1") and told in shown(status)


def test_a_run_whose_receipt_is_not_ours_counts_for_nothing(night: Played) -> None:
    before = night.status()
    night.repeat(0.5, night.ledger.champions()[-1], NEXT, "best\n", run_id="forged-1")
    after = night.status()
    assert (after.champion, after.noise) == (before.champion, before.noise)
    night.ledger.add_headline_run(headline_run("start", BASE, BASELINE, 1.0))
    forged = headline_run("champion", NEXT, "best\n", 0.1)
    forged = forged.model_copy(update={"measurement": forged.measurement.model_copy(update={"run_id": "forged-2"})})
    night.ledger.add_headline_run(forged)
    assert night.status().headline is None


def test_the_headline_is_shown_once_it_is_measured(night: Played) -> None:
    assert "none yet" in shown(night.status())
    night.ledger.add_headline_run(headline_run("start", BASE, BASELINE, 1.0))
    night.ledger.add_headline_run(headline_run("champion", NEXT, "best\n", 0.97))
    status = night.status()
    assert status.headline is not None and status.headline.interval_by == "noise"
    assert "champion less start -0.030000 bpb (95 % by the noise of validation runs: " in shown(status)


def test_json_has_all_of_it(night: Played) -> None:
    night.org.running("next\n", NEXT)
    plain = json.loads(json.dumps(night.status().plain()))
    assert plain["champion"]["bpb"] == fmean(LATER) and plain["checks"]["tails"]["runs"] == 10
    assert plain["running"][0]["device"] == "cpu" and plain["running"][0]["title"] == "an idea"
    assert "#15 an idea on cpu: starting" in shown(night.status())
    assert plain["results"]["crashed"] == 1
    assert plain["headline"] is None and plain["ended"] is None


# ---- without one -----------------------------------------------------------------------------------------------------


def test_a_rule_that_promises_nothing_is_not_dressed_up(client: redis.Redis) -> None:
    night = Played(client, Policy(rule="keep-if-lower"))
    best = night.merge("best\n", 0.96)
    status = night.status()
    spending = status.spending
    assert (spending.promises, spending.judged) == (False, 1)
    assert (spending.alpha, spending.judgements, spending.p1, spending.alpha_left) == (None,) * 4
    assert status.noise is None and status.checks.tails is None and status.checks.may_lose_bpb is None
    assert status.champion is not None and status.champion.experiment == best
    assert (status.champion.bpb, status.champion.fresh, status.champion.std_error_bpb) == (0.96, False, None)
    text = shown(status)
    assert "keep-if-lower promises nothing" in text and "verified," not in text.replace("unverified,", "")
    assert "claimed by its 1 selecting run; it has no fresh one" in text
    assert "unknown: no program was run twice" in text and "no canaries under this rule" in text


def test_a_campaign_of_which_nothing_is_known_yet_has_a_status(client: redis.Redis) -> None:
    client.flushall()
    ledger = Ledger(client, "night")
    ledger.create(campaign("night", policy=PROMISE))
    status = read_status(ledger, complaint)
    assert status.champion is None and status.start is None and status.states == {}
    assert "not measured yet" in shown(status)


# ---- tails -----------------------------------------------------------------------------------------------------------


def test_few_repeats_say_nothing_of_tails() -> None:
    assert look_at_tails([START[:4], LATER]) is None
    assert look_at_tails([[1.0] * 9]) is None
    assert look_at_tails([]) is None


def test_normal_repeats_of_programs_that_differ_look_normal() -> None:
    spread = [float(norm.ppf((i + 0.5) / 12)) for i in range(12)]
    tails = look_at_tails([spread, [100 + x for x in spread]])
    assert tails is not None and not tails.heavy and tails.runs == 24
    assert tails.p == pytest.approx(shapiro(spread * 2).pvalue)


def test_heavy_tails_give_a_caveat_that_says_what_they_cost(night: Played) -> None:
    best = night.ledger.champions()[-1]
    for bpb in (*[0.9705] * 12, 1.1, 0.85):
        night.repeat(bpb, best, NEXT, "best\n")
    status = night.status()
    assert status.checks.tails is not None and status.checks.tails.heavy
    assert "4.7 % of simulated nights had a false merge under two-run-min" in shown(status)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_a_count_line_names_what_was_verified_only_where_something_was() -> None:
    results = Results(verified=2, within_noise=3, worse=4, invalid=5, crashed=0)
    assert counts_line(results, promised=True) == "2 verified, 3 within noise, 4 worse, 5 invalid"
    assert counts_line(results, promised=False).startswith("2 merged, unverified, 3 within")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [(["--campaigns", "x"], 2, "--campaigns"), (["-c", "nope"], 3, "autoresearch-org launch")],
)
def test_bad_flags_end_in_a_line_that_says_so(tmp_path: Path, arguments: list[str], code: int, told: str) -> None:
    for name in ("train.py", "prepare.py", "program.md"):
        (tmp_path / name).write_text("")
    ended = run(tmp_path, "status", *arguments)
    assert ended.returncode == code and told in ended.stderr and "Traceback" not in ended.stderr


def test_how_often_early_stop_was_wrong_is_told(night: Played) -> None:
    """Two runs were ended; of two that would have been and finished, one was better than the champion."""
    assert night.status().checks.early_stops is None and "early stop" not in shown(night.status())
    for number in range(2):
        id = night.org.running(f"hopeless{number}\n", NEXT)
        night.ledger.record(id, night.org.lease, failed(f"hopeless{number}\n", FailureKind.HOPELESS, f"h{number}"))
    for number, bpb in enumerate((1.5, 0.9)):
        source = f"flagged{number}\n"
        id = night.org.running(source, NEXT)
        flagged = scored(source, bpb).model_copy(update={"flagged": "far too high"})
        night.ledger.record(id, night.org.lease, flagged)
        night.ledger.discard(id, verdict(champion_bpb=1.0, candidate_bpb=bpb))
    stops = night.status().checks.early_stops
    assert stops is not None and (stops.ended, stops.finished, stops.missed) == (2, 2, 1)
    assert stops.bound == pytest.approx(math.sqrt(0.95)), "one of two missed: Clopper and Pearson by hand"
    line = "early stop: 2 hopeless runs ended before time; of 2 that finished all the same 1 would have been missed (at most 97 %, 95 %)"
    assert line in shown(night.status())
