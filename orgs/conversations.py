"""What language models and agents were told about an experiment, and what they said, as text for a terminal.

The ledger has the calls, `.autoresearch/transcripts/` has the words (agents/transcript.py). All of it is a model's or a candidate's:
it is stripped of what a terminal would obey.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agents import transcript
from agents.fence import clean, one_line
from ledger.purse import MILLION
from orgs.cost import group
from records import BadInput, Call, Experiment

TEXT_LIMIT_CHARACTERS = 1500
"""Of one text, unless all of it is asked for."""


class Exchange(NamedTuple):
    """A call and what was said in it."""

    call: Call
    said: dict[str, Any] | None
    """`request`, and `reply`, `error` or both; None where it cannot be read."""
    problem: str
    """Why it cannot be read."""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"call": self.call.model_dump(mode="json"), "said": self.said, "problem": self.problem or None}


def exchanges_of(experiment: Experiment, booked: Iterable[Call], folder: Path) -> list[Exchange]:
    """Every call about an experiment, in order, and before them those of the conversation that it was proposed in.

    Args:
        experiment: the row.
        booked: the campaign's calls.
        folder: of the campaign's transcripts.
    """
    about = [c for c in booked if c.experiment == experiment.id or (experiment.talk and c.talk == experiment.talk)]
    return [read_exchange(call, folder) for call in sorted(about, key=lambda call: call.at)]


def read_exchange(call: Call, folder: Path) -> Exchange:
    if not call.sha256:
        return Exchange(call, None, "no transcript of this call was kept")
    try:
        return Exchange(call, transcript.read(folder, call.id, call.sha256), "")
    except BadInput as error:
        return Exchange(call, None, str(error))


# ---- as text ---------------------------------------------------------------------------------------------------------


def lines_of(exchanges: Iterable[Exchange], limit: int | None = TEXT_LIMIT_CHARACTERS) -> Iterator[str]:
    """The conversations, a heading for each call: system prompts once, each message once.

    Args:
        exchanges: in order.
        limit: characters of one text; None for all of it.
    """
    by_call = {one.call.id: one for one in exchanges}
    systems: set[str] = set()
    for talk in group((one.call for one in by_call.values()), lambda call: call.talk).values():
        shown = 0  # messages of the conversation so far
        answered = set[int]()  # places of answers that were shown as such
        for number, call in enumerate(talk, 1):
            one = by_call[call.id]
            yield heading(call, number)
            if one.said is None:
                yield f"! {one_line(one.problem, 400)}"
                continue
            request = one.said["request"]
            if (system := json.dumps(request["system"])) not in systems:
                systems.add(system)
                yield from blocks("system", request["system"], limit)
            for at, message in enumerate(request["messages"][shown:], shown):
                if message["role"] == "user" or at not in answered:
                    yield from blocks(message["role"], message["content"], limit)
            shown = len(request["messages"])
            if "reply" in one.said:
                answered.add(shown)
                yield from blocks("assistant", one.said["reply"]["content"], limit)
            if "error" in one.said:
                yield f"! {one_line(one.said['error'], 400)}"


def heading(call: Call, number: int) -> str:
    """Who was asked, when, what it cost and how it ended."""
    usage = call.usage
    about = "" if call.experiment is None else f" #{call.experiment}"
    tokens = f"{usage.prompt:,} tokens of prompt ({usage.cache_read:,} from the cache), {usage.output:,} of answer"
    cost = "at its own expense" if call.errand else f"{tokens} · {call.microdollars / MILLION:.4f} dollars"
    ended = "" if call.status == "ok" else f" · {call.status}"
    line = f"{call.role}{about} · call {number} · {call.model} · {call.at[:19]} · {call.seconds:.1f} s · {cost}{ended}"
    return f"──── {one_line(line, 400)} ────"


def blocks(speaker: str, content: list[dict[str, Any]], limit: int | None) -> Iterator[str]:
    """What one side said, block by block. What has no text, such as thinking that is not shown, is left out."""
    for block in content:
        match block["type"]:
            case "text":
                name, text = speaker, block["text"]
            case "thinking":
                name, text = f"{speaker}, thinking", block["thinking"]
            case "tool_use":
                name, text = f"{speaker} calls {one_line(block['name'], 60)}", arguments(block["input"])
            case "tool_result":
                name = "failed" if block.get("is_error") else "result"
                text = "\n".join(part.get("text", "") for part in block["content"])
            case other:
                name, text = one_line(f"{speaker}, {other}", 100), ""
        if text or block["type"] == "tool_use":
            yield f"[{name}] {clean(text, len(text) if limit is None else limit)}"


def arguments(given: object) -> str:
    """A tool's arguments as a person reads them: texts with their line breaks, everything else as JSON."""
    if not isinstance(given, dict):
        return json.dumps(given, ensure_ascii=False)
    return "\n".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in given.items()
    )
