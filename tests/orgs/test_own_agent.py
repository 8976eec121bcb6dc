"""A whole campaign whose coder is a program on the command line: the example that ships, with a key of its own."""

import gzip
import json
from pathlib import Path

import pytest

from ledger import Ledger
from ledger.purse import calls, holds, spending
from ledger.server import open_redis
from records import Experiment, State
from tests.orgs.lab import ROOT, play, run

pytestmark = pytest.mark.timeout(900)

SECRET = "sesame-open-yourself"
WORDS = "You make one hypothesis real in `/task/train.py`"
"""Of its role file."""
OLD, NEW = "F.relu(self.up(x)).square()", "F.gelu(self.up(x))"
IDEAS = [
    {"title": "think", "change": "Think of something."},
    {"title": "GELU", "change": f"Replace `{OLD}` by `{NEW}`."},
]
ROLES = """
[roles.planner]
file = "roles/planner.md"
settings = { mind = "script", script = "ideas.jsonl" }
[roles.coder]
file = "roles/example-agent/coder.md"
[money]
campaign_usd = 0.0
[upkeep]
combine = false
leave_one_out = false
"""


def prepare(lab: Path) -> None:
    """Two ideas, and an agent that is given a variable of the environment."""
    lines = (json.dumps({"hypothesis": idea, "source": "never looked at"}) for idea in IDEAS)
    (lab / "ideas.jsonl").write_text("\n".join(lines))
    coder = lab / "roles" / "example-agent" / "coder.md"
    coder.write_text(coder.read_text().replace("timeout_s: 120\n", "timeout_s: 120\nenvironment: [AGENT_KEY]\n"))
    org = lab / "orgs" / "tiny.toml"
    org.write_text(org.read_text().replace("experiments = 2", "experiments = 1") + ROLES)


def test_an_agent_codes_what_is_measured_and_its_conversations_are_shown(lab: Path) -> None:
    prepare(lab)
    assert "1 experiment judged" in play(lab, "orgs/tiny.toml", AGENT_KEY=SECRET)
    with open_redis(lab / ".autoresearch") as server:
        (name,) = Ledger.campaigns(server.client)
        ledger = Ledger(server.client, name)
        thought, coded = (e for e in ledger.experiments() if e.is_idea)
        the_errands_are_in_the_ledger(ledger, thought, coded)
    it_was_measured(thought, coded)
    shown = run(lab, "ledger", "show", str(coded.id), "--transcript", "--full").stdout
    assert shown.startswith(f"──── coder #{coded.id} · call 1 · example-agent · ")
    for part in (f"[user] # The coder\n\n{WORDS}", "[user] /task/train.py:\n", "[user] /task/hypothesis.json:\n"):
        assert part in shown
    assert "[assistant] /answer/patch.diff:\n--- a/train.py\n" in shown
    refused = run(lab, "ledger", "show", str(thought.id), "--transcript").stdout
    assert "· at its own expense · crash ────" in refused and "\n! exit code 1: I only understand" in refused
    cost = run(lab, "ledger", "cost").stdout
    assert "spent: 0.0000 dollars" in cost and "not in here: 2 errands" in cost
    nobody_kept(lab, SECRET)
    verified = run(lab, "ledger", "verify")
    assert verified.returncode == 0, verified.stdout


def the_errands_are_in_the_ledger(ledger: Ledger, thought: Experiment, coded: Experiment) -> None:
    assert [(call.role, call.model, call.experiment, call.status, call.errand) for call in calls(ledger)] == [
        ("coder", "example-agent", thought.id, "crash", True),
        ("coder", "example-agent", coded.id, "ok", True),
    ]
    assert spending(ledger) == (0, 0, False) and holds(ledger) == []


def it_was_measured(thought: Experiment, coded: Experiment) -> None:
    assert thought.state == State.REFUSED and "not implementable: exit code 1: I only understand" in thought.why
    assert coded.state in (State.MERGED, State.DISCARDED) and coded.measurements, coded.why
    assert coded.candidate is not None
    assert coded.candidate.source == (ROOT / "train.py").read_text().replace(OLD, NEW)
    assert coded.review is not None and coded.review.approved


def nobody_kept(lab: Path, secret: str) -> None:
    """In no file of the lab, transcripts unpacked."""
    files = [path for path in lab.rglob("*") if path.is_file()]
    texts = ((path, path.read_bytes()) for path in files)
    plain = [
        path for path, text in texts if secret.encode() in (gzip.decompress(text) if path.suffix == ".gz" else text)
    ]
    assert plain == [] and any(path.suffix == ".gz" for path in files)
