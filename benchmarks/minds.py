"""What language minds are asked, and what that would cost: tokens by role, the share out of the cache, dollars for each experiment.

    python benchmarks/minds.py --ideas 12

Planner, coder and reviewer work through ideas for this repository's train.py, with the prompts of roles/, the real SDK, purse and ledger. The
model is the double of the tests (tests/minds): it counts a token for 3.5 bytes, keeps prompts as the API says it does, and
answers briefly and without thinking. So tokens of prompts are near what the API would count, and tokens of answers are a lower
bound. Nothing is trained: what a result would be is drawn. Prints JSON.
"""

import argparse
import json
import random
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from agents.prices import Prices  # noqa: E402
from ledger.lease import acquire  # noqa: E402
from ledger.purse import cost_of, total  # noqa: E402
from ledger.server import open_redis  # noqa: E402
from records import Call, Preflighted, State, Verdict  # noqa: E402
from tests.agents.lab import Lab, make_lab  # noqa: E402
from tests.agents.sources import measurement  # noqa: E402
from tests.minds.office import Office  # noqa: E402
from tests.minds.policy import competent  # noqa: E402
from tests.minds.server import MessagesServer  # noqa: E402

MODELS = {"planner": "claude-opus-5-5", "coder": "claude-sonnet-5-5", "reviewer": "claude-opus-5-5"}
"""As orgs/trio.toml has them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ideas", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="minds-") as folder, open_redis(Path(folder) / "r") as server:
        lab = make_lab(made(Path(folder) / "lab"), server.client, (ROOT / "train.py").read_text())
        with MessagesServer(competent) as api:
            office = Office(lab, api)
            play(office, options.ideas, random.Random(options.seed))
            print(json.dumps(report(office), indent=1))


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def play(office: Office, ideas: int, rng: random.Random) -> None:
    """Propose, code, review, draw a result, learn; until so many ideas have one."""
    lab = office.lab
    while sum(e.is_idea and e.state.final for e in lab.ledger.experiments()) < ideas:
        proposed = office.planner(model=MODELS["planner"], proposals=2, plateau=1000).step()
        while office.coder(lambda source: Preflighted(outcome="passes", text=""), model=MODELS["coder"]).step():
            pass
        while office.reviewer(model=MODELS["reviewer"], effort="low").step():
            pass
        while judge(lab, rng):
            pass
        while office.reviewer(model=MODELS["reviewer"], effort="low").step():
            pass
        if not proposed:
            return


def judge(lab: Lab, rng: random.Random) -> bool:
    """A result for the oldest candidate, as the noise would have it. False when none waits."""
    lease = acquire(lab.ledger.client, f"cpu/{lab.root.name}/{rng.random()}", "bench", 60.0)
    taken = lab.ledger.take(lease, lab.champion.head())
    if taken is None or taken.candidate is None:
        return False
    bpb = 2.0 + rng.gauss(0.01, 0.01)
    lab.ledger.record(taken.id, lease, measurement(taken.candidate.source_sha256, bpb))
    verdict = {"merge": False, "rule": "two-run-min", "reason": "no better", "champion_bpb": 2.0, "candidate_bpb": bpb}
    lab.ledger.discard(taken.id, Verdict.model_validate(verdict))
    return True


def report(office: Office) -> dict[str, Any]:
    calls, ideas = office.calls, [e for e in office.lab.ledger.experiments() if e.is_idea]
    judged = [e for e in ideas if e.state == State.DISCARDED]
    cost = cost_of(ideas, calls)
    first = {role: next(c.id for c in calls if c.role == role) for role in MODELS}
    return {
        "date": date.today().isoformat(),
        "prices as of": Prices.load().as_of.isoformat(),
        "ideas": len(ideas),
        "judged": len(judged),
        "by role": {role: summary([c for c in calls if c.role == role], MODELS[role], len(judged)) for role in MODELS},
        "cache share after the first calls": total([c for c in calls if c.id not in first.values()]).cache_share,
        "dollars of all": total(calls).dollars,
        "dollars an experiment judged": total(calls).dollars / len(judged),
        "dearest, cheapest": [max(cost.values()), min(cost.values())],
    }


def summary(calls: list[Call], model: str, judged: int) -> dict[str, Any]:
    found = total(calls)
    return {
        "model": model,
        "calls an experiment": found.calls / judged,
        "prompt tokens an experiment": found.usage.prompt / judged,
        "answer tokens an experiment": found.usage.output / judged,
        "cache share": found.cache_share,
        "dollars an experiment": found.dollars / judged,
    }


if __name__ == "__main__":
    main()
