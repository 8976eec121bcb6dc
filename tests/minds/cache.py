"""Prompt caching, accounted as it is documented: platform.claude.com/docs/en/build-with-claude/prompt-caching."""

import json
import threading
from typing import Any

from tests.minds.blocks import Body, Place, canonical, places, sha256, tokens

MINIMUM_TOKENS = 512
"""Shortest prefix that is cached, of every current model."""
LOOKBACK_BLOCKS = 20
"""Places that are looked at for each breakpoint, itself included."""
LIFETIME_S = {"5m": 300.0, "1h": 3600.0}
UNCACHEABLE = {"thinking", "redacted_thinking"}


class PromptCache:
    """What a server remembers of prompts. Thread-safe.

    An entry is the hash of all that comes before and in a block with a breakpoint. Only breakpoints make entries, and an entry lives
    for its lifetime after its last use. One simplification: it can be read as soon as its request has come in, not only when the answer
    begins.
    """

    def __init__(self) -> None:
        self.entries: dict[str, tuple[float, float]] = {}
        """When each ends, and its lifetime; seconds."""
        self.lock = threading.Lock()

    def account(self, body: Body, now: float) -> dict[str, Any]:
        """Read and write the cache for one request.

        Returns:
            The input's part of `usage`. What was read, what was written and what was neither make up the whole prompt.
        """
        rows = list(places(body))
        keys = prefix_keys(body, rows)
        ends = running_total([tokens(row.block) for row in rows])
        marks = {at: ttl for at, ttl in breakpoints(body, rows).items() if ends[at] >= MINIMUM_TOKENS}
        with self.lock:
            live = {key for key, (end, _) in self.entries.items() if end > now}
            hit = max((at for mark in marks for at in lookback(mark) if keys[at] in live), default=-1)
            for at, lifetime_s in [(hit, 0.0)] * (hit >= 0) + [(at, LIFETIME_S[ttl]) for at, ttl in marks.items()]:
                known_s = self.entries[keys[at]][1] if keys[at] in live else 0.0
                self.entries[keys[at]] = (now + max(known_s, lifetime_s), max(known_s, lifetime_s))
        read = done = ends[hit] if hit >= 0 else 0
        written = dict.fromkeys(LIFETIME_S, 0)
        for at, ttl in sorted(marks.items()):
            written[ttl] += max(0, ends[at] - done)
            done = max(done, ends[at])
        return {
            "input_tokens": (ends[-1] if ends else 0) - done,
            "cache_creation_input_tokens": sum(written.values()),
            "cache_read_input_tokens": read,
            "cache_creation": {f"ephemeral_{ttl}_input_tokens": count for ttl, count in written.items()},
        }


def lookback(mark: int) -> range:
    """Places at which an entry may serve a breakpoint."""
    return range(max(0, mark - LOOKBACK_BLOCKS + 1), mark + 1)


def running_total(counts: list[int]) -> list[int]:
    ends, total = [], 0
    for count in counts:
        total += count
        ends.append(total)
    return ends


def prefix_keys(body: Body, rows: list[Place]) -> list[str]:
    """Hash of all up to each block. Another model is another cache; another tool_choice, thinking or effort keeps what is cached of
    tools and system, but not of messages."""
    settings = json.dumps([body.get(name) for name in ("tool_choice", "thinking", "output_config")], sort_keys=True)
    keys, key = [], sha256(body["model"])
    for row in rows:
        key = sha256(key, row.role, settings if row.role in ("user", "assistant") else "", canonical(row.block))
        keys.append(key)
    return keys


def breakpoints(body: Body, rows: list[Place]) -> dict[int, str]:
    """Lifetime by place of each block with cache_control; on top of the request it marks the last block that can be cached."""
    marks = {at: control(row.block) for at, row in enumerate(rows) if row.block.get("cache_control")}
    if body.get("cache_control"):
        last = max(at for at, row in enumerate(rows) if row.block.get("type") not in UNCACHEABLE)
        marks.setdefault(last, control(body))
    return marks


def control(marked: dict[str, Any]) -> str:
    return str(marked["cache_control"].get("ttl", "5m"))
