"""A ledger that an older version wrote is read on, as it was; an interrupted migration goes on; a newer one is refused."""

import base64
import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from ledger import Ledger, scripts
from ledger.champion import Champion
from ledger.inspection import inspect
from ledger.lease import acquire, release
from ledger.migrate import migrate
from ledger.schema import KEY, SCHEMA, check_schema
from ledger.server import open_redis
from ledger.store import VERDICTS
from records import Experiment, HostFault, MissingComponent, State
from sandbox.receipt import Key
from tests.ledger.repository import Repository

VERSION_1 = Path(__file__).with_name("version1.jsonl")
"""A night as version 1 left it, with every state but a merge under way: commands for Redis, then git's bundle, then what was to be read."""
DONE = "the ledger was in layout 1: 3 campaigns brought to layout 3"
SIGNED = Key(hashlib.sha256(b"version 1").digest())


class Old:
    """The ledger of version 1."""

    def __init__(self, client: redis.Redis, root: Path):
        self.client: Any = client
        *self.commands, bundle, self.expected = [json.loads(line) for line in VERSION_1.read_text().splitlines()]
        self.write()
        self.repository = Repository(root / "lab")
        (root / "night.bundle").write_bytes(base64.b64decode(bundle["bundle"]))
        branch = "refs/heads/autoresearch/night"
        self.repository.git("fetch", "--quiet", str(root / "night.bundle"), f"{branch}:{branch}")
        self.ledger = Ledger(client, "night")
        self.champion = Champion(self.repository.root, "night")

    def write(self) -> None:
        for command in self.commands:
            self.client.execute_command(*command)

    def dump(self) -> dict[str, Any]:
        """Everything in Redis."""
        read = {"string": "GET", "hash": "HGETALL", "list": "LRANGE", "zset": "ZRANGE"}
        more = {"list": ("0", "-1"), "zset": ("0", "-1", "WITHSCORES")}
        kinds = {key: self.client.type(key) for key in sorted(self.client.keys("*"))}
        return {key: self.client.execute_command(read[kind], key, *more.get(kind, ())) for key, kind in kinds.items()}


@pytest.fixture
def old(client: redis.Redis, tmp_path: Path) -> Old:
    return Old(client, tmp_path)


def test_every_row_is_what_it_was(old: Old) -> None:
    assert migrate(old.client) == DONE
    expected = [Experiment.model_validate(row) for row in old.expected["experiments"]]
    assert {e.state for e in expected} >= {State.CODED, State.RUNNING, State.INVALID, State.DUPLICATE, State.REFUSED}
    assert old.ledger.experiments() == expected
    verdicts = sum(e.is_idea and e.state in VERDICTS for e in expected)
    assert old.ledger.spent()._asdict() == old.expected["spent"] | {"verdicts": verdicts}
    assert Ledger.campaigns(old.client) == ["night", "other", "empty"]
    assert Ledger(old.client, "other").stop_reason() == "1 minute has passed"
    assert migrate(old.client) is None, "once is enough"


def test_history_receipts_and_merges_verify_as_before(old: Old) -> None:
    before = [fields["hash"] for _, fields in old.client.xrange("autoresearch:campaign:night:events")]
    migrate(old.client)
    assert [event.hash for event in old.ledger.events(count=1000)] == before
    assert [check.complaints for check in inspect(old.ledger, old.champion, SIGNED.complaint)] == [[]] * 6


def test_what_was_changed_before_is_noticed_after(old: Old) -> None:
    key = "autoresearch:campaign:night:experiment:3"
    old.client.hset(key, "verdict", old.client.hget(key, "verdict").replace("not lower", "lower"))
    migrate(old.client)
    assert {c.name for c in inspect(old.ledger, old.champion, SIGNED.complaint) if c.complaints} == {"rows"}


DIES = """
import os, signal, sys
from ledger import migrate
from ledger.server import connect
steps = int(sys.argv[2])
def step(work):
    def counted(*arguments):
        global steps
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        steps -= 1
        return work(*arguments)
    return counted
migrate.migrate_campaign = step(migrate.migrate_campaign)
migrate.write_schema = step(migrate.write_schema)
migrate.migrate(connect(sys.argv[1]))
"""
"""Migrates, and is killed by SIGKILL before the step whose number is given: three campaigns, then the version."""


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_migration_that_is_killed_between_any_two_steps_ends_the_same(old: Old, redis_url: str, steps: int) -> None:
    migrate(old.client)
    whole = old.dump()
    old.client.flushall()
    old.write()
    ended = subprocess.run([sys.executable, "-c", DIES, redis_url, str(steps)], check=False)
    assert ended.returncode == -signal.SIGKILL
    streams = [key for key in old.client.keys("*:events") if old.client.type(key) == "stream"]
    assert len(streams) == 3 - steps and old.client.get(KEY) is None
    migrate(old.client)
    assert old.dump() == whole


def test_a_campaign_that_somebody_wrote_into_meanwhile_is_left_as_it_is(old: Old) -> None:
    prefix = "autoresearch:campaign:night:"
    assert scripts.run(old.client, "migrate", prefix, "the head of a moment ago", 0, "{}", "{}") == 0
    assert old.client.type(prefix + "events") == "stream" and old.client.hget(prefix + "experiment:1", "state")


def test_nothing_is_migrated_under_an_older_version_that_is_at_work(old: Old) -> None:
    lease = acquire(old.client, "launcher/night", "launcher", 60.0)
    with pytest.raises(HostFault, match=r"at work in this ledger \(launcher/night\): stop it"):
        migrate(old.client)
    assert old.client.type("autoresearch:campaign:night:events") == "stream"
    release(old.client, lease)
    assert migrate(old.client) is not None


def test_a_merge_that_an_older_version_began_is_finished_by_it(old: Old) -> None:
    intent = "autoresearch:campaign:night:intent"
    old.client.hset(intent, mapping={"experiment": "7", "parent": "a" * 40, "commit": "b" * 40})
    with pytest.raises(HostFault, match="night has a merge under way: finish it with the version that began it"):
        migrate(old.client)
    assert old.client.type("autoresearch:campaign:other:events") == "stream"
    old.client.delete(intent)
    assert migrate(old.client) == DONE


def test_a_ledger_of_a_newer_version_is_refused(old: Old) -> None:
    check_schema(old.client)
    old.client.set(KEY, SCHEMA + 1)
    with pytest.raises(MissingComponent, match=f"has layout {SCHEMA + 1}, and this version .* knows {SCHEMA}: update"):
        check_schema(old.client)
    assert migrate(old.client) is None


def test_an_opener_says_in_one_line_that_it_migrated(old: Old, redis_url: str, tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with open_redis(tmp_path, redis_url, say=said.append) as server:
            assert len(Ledger(server.client, "night").experiments()) == 15
    assert said == [DONE]
