"""What must hold at the end of a campaign, whatever happened to it."""

import hashlib
import json
import re
from itertools import pairwise

from ledger import Ledger
from ledger.champion import Champion
from ledger.inspection import inspect
from ledger.lease import quarantines
from records import State
from sandbox.receipt import Key
from tests.faults.campaign import Campaign

ENDS = {
    "discard": (State.DISCARDED, State.WITHIN_NOISE),
    "confirm": (State.CONFIRMING,),
    "pool": (State.POOLED,),
}
"""Where these steps lead."""


def check(campaign: Campaign) -> None:
    """Assert that nothing was lost and nothing doubled."""
    with campaign.opened() as ledger:
        assert ledger is not None
        champion = Champion(campaign.root, ledger.name)
        complaints = [c for check in inspect(ledger, champion, Key.of(campaign.root / ".autoresearch").complaint) for c in check.complaints]  # fmt: skip
        assert complaints == [], f"{complaints}\n{campaign.log()}"
        check_branch(ledger, champion)
        merged = ledger.experiments(states=[State.MERGED])
        assert campaign.real or any(e.is_idea for e in merged), "something better was there"
        assert campaign.real or all(len(e.runs) == 2 for e in merged if e.is_idea), "what merges is run twice"
        check_history(campaign, ledger)
        check_budget(campaign, ledger)
        assert ledger.outbox() == {} and quarantines(ledger.client) == {}
        assert not ledger.experiments(states=[State.RUNNING, State.SCORED, State.CONFIRMING, State.MERGING])


def check_branch(ledger: Ledger, champion: Champion) -> None:
    """History is linear, each merge's parent is the champion before it, and each experiment has at most one merge."""
    commits = champion.since(ledger.campaign().base)
    assert [c.parents for c in commits] == [[before] for before in [ledger.campaign().base, *(c.id for c in commits)][: len(commits)]]  # fmt: skip
    merges = [c.trailers["Experiment"] for c in commits if "Experiment" in c.trailers]
    assert len(merges) == len(set(merges))
    rows = {e.id: e for e in ledger.experiments()}
    became = [rows[e.experiment] for e in ledger.events() if e.kind.endswith("→merged") and e.experiment is not None]
    assert len({row.id for row in became}) == len(became)
    for before, row in pairwise(became):
        assert row.candidate is not None
        if row.lane != "baseline":
            assert row.candidate.parent == before.commit
    assert {str(row.id) for row in became if row.lane != "baseline"} == set(merges)
    assert champion.head() == ledger.champion_commit() == became[-1].commit


def check_history(campaign: Campaign, ledger: Ledger) -> None:
    """What a reader saw and what a writer was told has happened is still there; results came in under rising fences."""
    events = ledger.events(count=10**6)
    assert [e.hash for e in events][: len(campaign.seen)] == [e.hash for e in campaign.seen]
    digests = [e.digest for e in events if e.record == "measurement"]
    merged = {(e.experiment, e.detail) for e in events if e.kind == "merging→merged"}
    happened = {(e.kind.partition("→")[2], e.experiment) for e in events}
    path = campaign.root / "acknowledged"
    for line in path.read_text().splitlines() if path.exists() else []:
        name, _, id, *args = json.loads(line)
        if name == "record":
            assert hashlib.sha1(args[4].encode()).hexdigest() in digests
        elif name == "merged":
            assert (id, args[2]) in merged
        else:
            assert any((state, id) in happened for state in ENDS[name])
    measured = {sha1_of(m.model_dump_json()): m for e in ledger.experiments() for m in e.measurements}
    fences = [int(fence) for digest in digests for fence in re.findall(r"fence(\d+)$", measured[digest].run_id)]
    assert fences == sorted(fences)
    assert len(digests) == len(set(digests)) == len({m.run_id for m in measured.values()})


def check_budget(campaign: Campaign, ledger: Ledger) -> None:
    spent = ledger.spent()
    assert spent.judged == spent.started == campaign.experiments
    assert sum(e.lane == "baseline" and e.state != State.MERGED for e in ledger.experiments()) == 0


def sha1_of(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()
