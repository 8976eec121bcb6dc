"""Planner, coder and reviewer with language minds in a lab, and what they ask and pay."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anthropic.types import Message

from agents.coder import Coder
from agents.minds.desk import Desk
from agents.minds.line import Line, Request
from agents.minds.talk import text_block
from agents.planner import Planner
from agents.prices import Prices
from agents.reviewer import Reviewer
from agents.role import RoleFile
from agents.settings import ModelSettings
from data.profiles import PROFILES
from ledger.purse import Limits, Purse, calls, spending
from records import Call, Preflighted
from tests.agents.lab import Lab
from tests.minds.server import KEY, MessagesServer

ROOT = Path(__file__).parents[2]
PROFILE = PROFILES["cpu"]
MODEL = "claude-opus-5-5"
DOLLAR = 1_000_000
PLENTY = Limits(20 * DOLLAR, 5 * DOLLAR)
FREE = "as_of = 2026-01-01\n[models.local-7b]\n" + "".join(
    f"{kind} = 0\n" for kind in ("input", "cache_read", "cache_write", "cache_write_1h", "output")
)
"""A table with the price of a server of one's own."""


@dataclass(frozen=True)
class Office:
    """Seats of a lab; every setting may be replaced by keyword."""

    lab: Lab
    api: MessagesServer
    limits: Limits = PLENTY
    call_microdollars: int = 2 * DOLLAR
    roles: str = "roles"
    """Folder of the role files."""
    prices: Prices = field(default_factory=Prices.load)

    def having(self, **changes: Any) -> "Office":
        return replace(self, **changes)

    def desk(self, role: str, seat: str = "") -> Desk:
        purse = Purse(self.lab.ledger, self.limits, seat or f"{role}-0")
        folder = self.lab.root / ".autoresearch" / "transcripts"
        keys = {"ANTHROPIC_API_KEY": KEY}
        return Desk(role, self.lab.root, purse, self.prices, self.call_microdollars, folder, keys)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Of a role: it does not wait for long."""
        patience = {"patience_s": 0.0, "longest_wait_s": 0.2, "timeout_s": 20.0}
        return {"mind": "anthropic", "model": MODEL, "base_url": self.api.url, **patience, **changes}

    def role(self, name: str, **changes: Any) -> RoleFile:
        return RoleFile(self.lab.root / self.roles / f"{name}.md", self.settings(**changes))

    def planner(self, **changes: Any) -> Planner:
        desk, role = self.desk("planner"), self.role("planner", **changes)
        return Planner(
            self.lab.ledger, self.lab.champion, self.lab.root, desk=desk, profile=PROFILE, max_open=4, role=role
        )

    def coder(self, preflight: Callable[[str], Preflighted] | None = None, **changes: Any) -> Coder:
        desk, role = self.desk("coder"), self.role("coder", **changes)
        return Coder(
            self.lab.ledger,
            self.lab.champion,
            self.lab.root,
            desk=desk,
            profile=PROFILE,
            preflight=preflight,
            role=role,
        )

    def reviewer(self, **changes: Any) -> Reviewer:
        desk, role = self.desk("reviewer"), self.role("reviewer", **changes)
        return Reviewer(self.lab.ledger, self.lab.champion, self.lab.root, desk=desk, profile=PROFILE, role=role)

    def ask(self, text: str = "Hello.", *, seat: str = "", experiment: int | None = None, **changes: Any) -> Message:
        """One bare call."""
        values = {name: value for name, value in self.settings(**changes).items() if name != "mind"}

        async def with_line() -> Message:
            desk = self.desk("coder", seat).at(experiment)
            async with Line(ModelSettings.model_validate(values), desk) as line:
                return await line.ask(Request([], [{"role": "user", "content": [text_block(text)]}], []))

        return asyncio.run(with_line())

    @property
    def calls(self) -> list[Call]:
        return calls(self.lab.ledger)

    @property
    def paid(self) -> int:
        return spending(self.lab.ledger).paid
