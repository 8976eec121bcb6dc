"""The whole ledger in one file, while the org runs: every key of Redis at one moment, and the campaigns' branches with it.

JSON lines: a header, a line for each key, a git bundle of the branches, and the SHA-256 of all that. It is read back into any
Redis that is new enough, whatever server it came from. Leases are left out: whoever held one is gone when it is read.
"""

import base64
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import redis

from ledger import scripts
from ledger.champion import Champion
from ledger.export import write_whole
from ledger.store import CAMPAIGNS, READ_AT_ONCE, Ledger, batched
from records import BadInput, HostFault

FORMAT = "autoresearch-org ledger backup 1"
PART = 10_000
"""Items of a list, a hash or a sorted set that are read or written with one command. Even."""
HASHES = ("experiment", "run", "verdict")
"""Of one experiment, beside the list of its measurements."""
PATIENCE = 100
"""Times to read again because somebody wrote meanwhile."""


class Key(NamedTuple):
    """One key of Redis."""

    name: str
    kind: str
    """string, hash, list or zset."""
    value: str | list[str]
    """Of a hash: field, value, …; of a sorted set: member, score, …"""


class Backup(NamedTuple):
    """What a backup holds."""

    at: str
    """UTC, ISO 8601."""
    campaigns: list[str]
    keys: list[Key]
    branches: dict[str, str]
    """Commit at the tip of each campaign's branch, by ref."""
    bundle: bytes
    """Of git, with all that these tips need; empty if there is none."""

    @property
    def summary(self) -> dict[str, object]:
        return {"at": self.at, "campaigns": self.campaigns, "keys": len(self.keys), "branches": self.branches}


# ---- out -------------------------------------------------------------------------------------------------------------


def back_up(client: redis.Redis, repository: Path, path: Path) -> Backup:
    """Write everything into a file, in one step.

    Raises:
        HostFault: the branches moved at every look, or git failed.
    """
    backup = look(client, repository)
    lines = [json.dumps({"format": FORMAT, "at": backup.at, "campaigns": backup.campaigns})]
    lines += [json.dumps(key._asdict()) for key in backup.keys]
    lines.append(json.dumps({"branches": backup.branches, "bundle": base64.b64encode(backup.bundle).decode()}))
    content = "".join(f"{line}\n" for line in lines).encode()
    write_whole(path, content + seal(content))
    return backup


def look(client: redis.Redis, repository: Path) -> Backup:
    """Redis and git at one moment: the tips were the same before and after, so the ledger knows of whatever has landed."""
    for _ in range(PATIENCE):
        campaigns = Ledger.campaigns(client)
        champions = [Champion(repository, name) for name in campaigns]
        before = tips(champions)
        keys = snapshot(client, campaigns)
        done = champions[0].git("bundle", "create", "--quiet", "-", *before) if before else None
        if tips(champions) != before or Ledger.campaigns(client) != campaigns:
            continue  # git may even have failed for that: a branch that moves while it is read makes an empty bundle
        if done is not None and done.code:
            raise HostFault(f"git bundle failed in {repository}: {done.error}")
        bundle = b"" if done is None else done.output
        return Backup(datetime.now(UTC).isoformat(timespec="seconds"), campaigns, keys, before, bundle)
    raise HostFault(f"merges landed during each of {PATIENCE} looks at the ledger: try again")


def snapshot(client: redis.Redis, campaigns: Sequence[str]) -> list[Key]:
    """Every key at one moment.

    Histories and experiments are read before it, a part at a time, so that nobody has to wait; at that moment only what has
    changed since is read again, as the newer events tell.
    """
    keys: dict[str, Key] = {}
    known: dict[str, int] = {}
    for ledger in (Ledger(client, name) for name in campaigns):
        known[ledger.prefix] = count = ledger.last_event()
        events = ledger.prefix + "events"
        parts = [ledger.reader.lrange(events, i, min(i + PART, count) - 1) for i in range(0, count, PART)]
        keys[events] = Key(events, "list", [text for part in parts for text in part])
        for ids in batched(range(1, ledger.last_id() + 1), READ_AT_ONCE):
            keys |= {key.name: key for key in read_experiments(ledger, ids)}
    changed, found = scripts.run(client, "snapshot", json.dumps(known))
    for prefix, id in changed:
        for part in (*HASHES, "measurements"):
            keys.pop(f"{prefix}{part}:{id}", None)
    for name, kind, value in found:
        before = keys[name].value if name in keys else []  # of a history, what the script left out
        keys[name] = Key(name, kind, [*before, *value] if kind == "list" else value)
    return list(keys.values())


def read_experiments(ledger: Ledger, ids: Sequence[int]) -> Iterator[Key]:
    def ask(id: int, pipe: Any) -> None:
        for part in HASHES:
            pipe.hgetall(f"{ledger.prefix}{part}:{id}")
        pipe.lrange(f"{ledger.prefix}measurements:{id}", 0, -1)

    names = [f"{ledger.prefix}{part}:{id}" for id in ids for part in (*HASHES, "measurements")]
    for name, value in zip(names, ledger.read(ids, ask), strict=True):
        if value and isinstance(value, dict):
            yield Key(name, "hash", [text for pair in value.items() for text in pair])
        elif value:
            yield Key(name, "list", value)


def tips(champions: Sequence[Champion]) -> dict[str, str]:
    """The branches that are there: an imported campaign has none."""
    found = {champion.ref: champion.resolve(champion.ref) for champion in champions}
    return {ref: commit for ref, commit in found.items() if commit is not None}


def seal(content: bytes) -> bytes:
    """The last line."""
    return json.dumps({"sha256": hashlib.sha256(content).hexdigest()}).encode() + b"\n"


# ---- in --------------------------------------------------------------------------------------------------------------


def read_backup(path: Path) -> Backup:
    """A backup that is whole.

    Raises:
        BadInput: it is none, or something of it is missing or was changed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    covered, end, last = content[:-1].rpartition(b"\n")
    if not covered or last + content[-1:] != seal(covered + end):
        raise BadInput(f"{path}: is no whole backup: its end is missing, or something was changed; take another copy")
    head, *keys, git = [json.loads(line) for line in covered.split(b"\n")]
    if head.get("format") != FORMAT:
        raise BadInput(f"{path}: is not a {FORMAT!r} but {head.get('format')!r}: update this program")
    bundle = base64.b64decode(git["bundle"])
    return Backup(head["at"], head["campaigns"], [Key(**key) for key in keys], git["branches"], bundle)


def restore(client: redis.Redis, repository: Path, backup: Backup) -> None:
    """Bring back the branches, then the ledger, in one transaction: after a crash in between, do it again.

    Raises:
        BadInput: the ledger has campaigns, or a branch is not where the backup could take it from.
    """
    refuse_full(client)
    bring_branches(repository, backup)
    pipe: Any
    with client.pipeline(transaction=True) as pipe:
        pipe.watch(CAMPAIGNS)
        refuse_full(client)
        pipe.multi()
        for key in backup.keys:
            pipe.delete(key.name)
            write(pipe, key)
        try:
            pipe.execute()
        except redis.WatchError:
            raise BadInput("somebody else wrote into the ledger meanwhile: restore into an empty one") from None


def refuse_full(client: redis.Redis) -> None:
    if names := Ledger.campaigns(client):
        raise BadInput(
            f"the ledger has campaigns ({', '.join(names)}), and a backup goes into an empty one: "
            "name another with --redis, or move .autoresearch/redis away while nothing runs"
        )


def bring_branches(repository: Path, backup: Backup) -> None:
    """Every branch forward to where it was; none is set back. Raises BadInput if one has gone on, or elsewhere."""
    if not backup.branches:
        return
    champions = [c for c in (Champion(repository, name) for name in backup.campaigns) if c.ref in backup.branches]
    with tempfile.NamedTemporaryFile(suffix=".bundle") as file:
        file.write(backup.bundle)
        file.flush()
        champions[0].must("bundle", "unbundle", file.name)
    here = {champion.ref: champion.resolve(champion.ref) for champion in champions}
    for champion in champions:
        then, now = backup.branches[champion.ref], here[champion.ref]
        if now is not None and champion.git("merge-base", "--is-ancestor", now, then).code:
            raise BadInput(
                f"{champion.branch} has commits that the backup does not have: set it back with `git branch -f "
                f"{champion.branch} {then[:10]}`, or keep them and rebuild the ledger from it (ledger rebuild)"
            )
    for champion in champions:
        then, now = backup.branches[champion.ref], here[champion.ref]
        if now != then and not champion.swap(now or "", then):
            raise HostFault(f"{champion.branch} moved while it was restored: try again")


def write(pipe: Any, key: Key) -> None:
    """One key, in commands that Redis takes whatever the size of it."""
    match key.kind, key.value:
        case "string", str(text):
            pipe.set(key.name, text)
        case "list", list(items):
            for part in batched(items, PART):
                pipe.rpush(key.name, *part)
        case "hash", list(items):
            for part in batched(items, PART):
                pipe.hset(key.name, items=part)
        case "zset", list(items):
            for part in batched(items, PART):
                pipe.zadd(key.name, dict(zip(part[::2], map(float, part[1::2]), strict=True)))
        case kind, _:
            raise BadInput(f"{key.name} is a {kind}, which no ledger has")
