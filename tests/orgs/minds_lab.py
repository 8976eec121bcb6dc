"""A lab in which a language model proposed, coded, reviewed and learnt, by the real SDK, purse and ledger."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from agents.coder import Coder
from agents.minds.desk import Desk
from agents.planner import Planner
from agents.reviewer import Reviewer
from agents.role import RoleFile
from ledger import Ledger
from ledger.lease import acquire
from ledger.purse import Limits, Purse, calls
from ledger.server import open_redis
from orgs.lab import Lab
from records import Call, Verdict
from tests.agents.lab import make_lab
from tests.agents.sources import PROFILE, measurement
from tests.minds.blocks import Block, Body
from tests.minds.faults import FAULTS, Fault
from tests.minds.policy import call, say
from tests.minds.prompt import prompt_text, tools, wants_lesson
from tests.minds.server import KEY, MessagesServer

ORG = """
name = "test"
[data]
dataset = ".autoresearch/datasets/none"
[roles.planner]
file = "roles/planner.md"
settings = {{ mind = "anthropic", model = "claude-opus-5-5", proposals = 2, base_url = "{url}" }}
[roles.coder]
file = "roles/coder.md"
settings = {{ mind = "anthropic", model = "claude-sonnet-5-5", base_url = "{url}" }}
[roles.reviewer]
file = "roles/reviewer.md"
settings = {{ mind = "anthropic", model = "claude-opus-5-5", base_url = "{url}" }}
[money]
campaign_usd = 5.0
"""
OLD, NEW = "torch.nn.Linear(WIDTH, 2)", "torch.nn.Linear(WIDTH, 2, bias=False)"
HOSTILE = "No bias. \x1b[31mred\x1b[0m"
"""What a terminal would obey."""
LONG = "It learns nothing. " * 200


def play(body: Body) -> list[Block]:
    """Proposes to drop a bias, does so in two answers, approves of it, and learns."""
    offered = tools(body)
    if "propose" in offered:
        idea = {"title": HOSTILE, "change": "Drop it.", "rationale": LONG, "category": "code", "probability": 0.2}
        return [*say("I look at the bias."), *call(body, "propose", hypotheses=[idea])]
    if "submit" in offered:
        begun = len(body["messages"]) > 1
        return call(body, "submit", summary="done") if begun else call(body, "edit", old=OLD, new=NEW)
    if not wants_lesson(prompt_text(body)):
        opinion = {"approved": True, "code": "ok", "reason": "one change", "expected_delta_bpb": -0.001}
        return call(body, "review", **opinion, probability=0.1)
    return call(body, "lesson", text="The bias is worth nothing.")


def overloaded_once(number: int, at_s: float, body: Any) -> Fault | None:
    """The second call fails."""
    return FAULTS["overloaded"] if number == 1 else None


class Played(NamedTuple):
    lab: Lab
    ledger: Ledger
    experiment: int
    server: MessagesServer
    calls: list[Call]

    @property
    def transcripts(self) -> Path:
        return self.lab.transcripts(self.ledger.name)


@contextmanager
def played(root: Path) -> Iterator[Played]:
    """One experiment from proposal to lesson in an empty folder: 6 calls, the second of which fails and is repeated."""
    (root / ".gitignore").write_text(".autoresearch/\n")
    (root / "prepare.py").write_text("")
    lab = Lab(root)
    with open_redis(lab.state) as redis, MessagesServer(play, faults=overloaded_once) as server:
        made = make_lab(root, redis.client)
        (root / "orgs").mkdir()
        (root / "orgs" / "test.toml").write_text(ORG.format(url=server.url))
        seats = Seats(lab, made.ledger, server.url)
        planner = Planner(made.ledger, made.champion, root, profile=PROFILE, max_open=2, desk=seats.desk("planner"), role=seats.role("planner"))  # fmt: skip
        coder = Coder(made.ledger, made.champion, root, profile=PROFILE, desk=seats.desk("coder"), role=seats.role("coder"))  # fmt: skip
        reviewer = Reviewer(made.ledger, made.champion, root, profile=PROFILE, desk=seats.desk("reviewer"), role=seats.role("reviewer"))  # fmt: skip
        assert planner.step() and coder.step() and reviewer.step()
        lease = acquire(made.ledger.client, f"cpu/{root.name}/again", "test", 60.0)
        experiment = made.ledger.take(lease, made.champion.head())
        assert experiment is not None and experiment.candidate is not None
        made.ledger.record(experiment.id, lease, measurement(experiment.candidate.source_sha256, 2.1))
        said = Verdict(merge=False, rule="r", champion_bpb=2.0, candidate_bpb=2.1, reason="worse")
        made.ledger.discard(experiment.id, said)
        assert reviewer.step()
        assert server.errors == []
        yield Played(lab, made.ledger, experiment.id, server, calls(made.ledger))


class Seats(NamedTuple):
    lab: Lab
    ledger: Ledger
    url: str

    def desk(self, role: str) -> Desk:
        purse = Purse(self.ledger, Limits(5_000_000, 2_000_000), f"{role}-0")
        folder = self.lab.transcripts(self.ledger.name)
        return Desk(role, self.lab.root, purse, call_microdollars=1_500_000, transcripts=folder, keys={"ANTHROPIC_API_KEY": KEY})  # fmt: skip

    def role(self, name: str) -> RoleFile:
        model = "claude-sonnet-5-5" if name == "coder" else "claude-opus-5-5"
        more = {"longest_wait_s": 0.1, "proposals": 2} if name == "planner" else {"longest_wait_s": 0.1}
        settings = {"mind": "anthropic", "model": model, "base_url": self.url, **more}
        return RoleFile(self.lab.root / "roles" / f"{name}.md", settings)
