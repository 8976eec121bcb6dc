"""A backup is one moment of the ledger and its branches; it comes back whole, or not at all."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from ledger import Ledger, backup, scripts
from ledger.backup import back_up, read_backup, restore
from ledger.champion import Champion
from ledger.inspection import inspect
from ledger.lease import Keeper, Lease, acquire
from ledger.server import open_redis
from records import BadInput, State
from sandbox.receipt import Key
from tests.ledger.night import Night
from tests.ledger.repository import Repository
from tests.ledger.samples import campaign


class Lab:
    """A night with two merges, its backup, and another machine to restore it on."""

    def __init__(self, client: redis.Redis, lease: Lease, root: Path):
        self.key = Key.of(root)
        self.night = Night(client, lease, Repository(root / "lab"), self.key.sign)
        self.night.scored("LR = 0.5\n", 0.9)
        self.night.settle()
        self.night.scored("LR = 9\n", 1.1)
        self.night.settle()
        self.night.org.propose("naïve\nidea \x1b[31m")
        self.night.ledger.claim("coder")
        self.client: Any = client
        self.path = root / "night.backup"
        self.elsewhere = Repository(root / "elsewhere")

    def verify(self, client: redis.Redis, repository: Repository) -> list[list[str]]:
        ledger, champion = Ledger(client, "night"), Champion(repository.root, "night")
        return [check.complaints for check in inspect(ledger, champion, self.key.complaint)]


@pytest.fixture
def lab(client: redis.Redis, lease: Lease, tmp_path: Path) -> Lab:
    return Lab(client, lease, tmp_path)


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """Another server."""
    with open_redis(tmp_path_factory.mktemp("s")) as server:
        yield server.client


def test_it_comes_back_on_another_server_in_another_clone_and_verifies(lab: Lab, empty: redis.Redis) -> None:
    Ledger(lab.client, "other").create(campaign("other"))
    back_up(lab.client, lab.night.repository.root, lab.path)
    restore(empty, lab.elsewhere.root, read_backup(lab.path))
    assert Ledger.campaigns(empty) == ["night", "other"]
    for name in ("night", "other"):
        old, new = Ledger(lab.client, name), Ledger(empty, name)
        assert new.experiments() == old.experiments() and new.events() == old.events()
        assert (new.spent(), new.head(), new.campaign()) == (old.spent(), old.head(), old.campaign())
    there = Champion(lab.elsewhere.root, "night")
    assert there.head() == lab.night.champion.head() == Ledger(empty, "night").champion_commit()
    assert lab.verify(empty, lab.elsewhere) == [[]] * len(lab.verify(lab.client, lab.night.repository))


def test_leases_stay_behind_and_fences_go_on(lab: Lab, empty: redis.Redis) -> None:
    fence = lab.night.org.lease.fence
    back_up(lab.client, lab.night.repository.root, lab.path)
    restore(empty, lab.elsewhere.root, read_backup(lab.path))
    assert acquire(empty, lab.night.org.lease.device, "another", 60.0).fence == fence + 1


def test_an_org_goes_on_from_it(lab: Lab, empty: redis.Redis) -> None:
    id = lab.night.scored("LR = 0.4\n", 0.8)
    back_up(lab.client, lab.night.repository.root, lab.path)
    restore(empty, lab.elsewhere.root, read_backup(lab.path))
    lab.night.ledger = lab.night.org.ledger = Ledger(empty, "night")
    lab.night.repository, lab.night.keeper = lab.elsewhere, Keeper(empty, lab.night.org.relay(), 60.0)
    lab.night.settle()
    assert lab.night.ledger.experiment(id).state == State.MERGED
    assert Champion(lab.elsewhere.root, "night").source("autoresearch/night") == "LR = 0.4\n"


def test_one_made_at_any_moment_of_a_busy_night_verifies(
    lab: Lab, empty: redis.Redis, tmp_path: Path, redis_url: str
) -> None:
    ended = threading.Event()

    def work() -> None:
        try:
            for i in range(12):
                lab.night.scored(f"LR = 0.{400 - i}\n", 0.8 - i / 100)
                lab.night.settle()
                lab.night.org.claimed()
        finally:
            ended.set()

    worker = threading.Thread(target=work)
    worker.start()
    reader, made = redis.Redis.from_url(redis_url, decode_responses=True), 0
    while not ended.is_set() or made == 0:
        back_up(reader, lab.night.repository.root, lab.path)
        empty.flushall()
        clone = Repository(tmp_path / f"clone-{made}")
        restore(empty, clone.root, read_backup(lab.path))
        assert not any(lab.verify(empty, clone))
        made += 1
    worker.join()
    assert made > 1, "several, while it went on"
    assert len(lab.night.commits()) == 13, "and nothing stood in the way of that"


def test_what_changes_while_it_is_read_is_in_it(lab: Lab, empty: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is read; then, before the moment that the backup is of, this happens."""
    run, waiting = scripts.run, lab.night.scored("LR = 0.45\n", 0.85)

    def happens(client: redis.Redis, name: str, *arguments: str) -> Any:
        if name == "snapshot":
            lab.night.org.claimed()
            lab.night.settle()
            Ledger(lab.client, "newer").create(campaign("newer"))
        return run(client, name, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(scripts, "run", happens)
        keys = backup.snapshot(lab.client, ["night"])
    assert lab.night.ledger.experiment(waiting).state == State.MERGED
    assert {key.name for key in keys} == {key for key in lab.client.keys("*") if ":lease:" not in key}
    for key in keys:
        backup.write(empty, key)
    assert Ledger(empty, "night").experiments() == lab.night.ledger.experiments()
    assert lab.verify(empty, lab.night.repository) == lab.verify(lab.client, lab.night.repository)
    assert Ledger(empty, "newer").campaign() == campaign("newer")


# ---- what is refused -------------------------------------------------------------------------------------------------


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_at_a_line(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:-1])


def without_its_last_byte(content: bytes) -> bytes:
    return content[:-1]


def with_a_better_score(content: bytes) -> bytes:
    assert b"1.1" in content
    return content.replace(b"1.1", b"0.1", 1)


def without_a_key(content: bytes) -> bytes:
    first, _, *rest = content.splitlines(keepends=True)
    return b"".join([first, *rest])


def with_another_order(content: bytes) -> bytes:
    first, second, third, *rest = content.splitlines(keepends=True)
    return b"".join([first, third, second, *rest])


def nothing(_: bytes) -> bytes:
    return b""


def something_else(_: bytes) -> bytes:
    return b'{"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}\n'


@pytest.mark.parametrize(
    "harm",
    [cut_short, cut_at_a_line, without_its_last_byte, with_a_better_score, without_a_key, with_another_order, nothing, something_else],
)  # fmt: skip
def test_a_backup_that_is_not_whole_is_refused_in_one_line(lab: Lab, harm: Callable[[bytes], bytes]) -> None:
    back_up(lab.client, lab.night.repository.root, lab.path)
    assert read_backup(lab.path).campaigns == ["night"]
    lab.path.write_bytes(harm(lab.path.read_bytes()))
    with pytest.raises(BadInput, match=r"night\.backup: is no whole backup") as refused:
        read_backup(lab.path)
    assert "\n" not in str(refused.value)


def test_a_ledger_that_has_a_campaign_is_not_written_over(lab: Lab, empty: redis.Redis) -> None:
    back_up(lab.client, lab.night.repository.root, lab.path)
    Ledger(empty, "mine").create(campaign("mine"))
    with pytest.raises(BadInput, match=r"has campaigns \(mine\), and a backup goes into an empty one"):
        restore(empty, lab.elsewhere.root, read_backup(lab.path))
    assert Ledger.campaigns(empty) == ["mine"]
    assert Champion(lab.elsewhere.root, "night").resolve("autoresearch/night") is None


def test_a_branch_that_has_gone_on_is_not_set_back(lab: Lab, empty: redis.Redis) -> None:
    back_up(lab.client, lab.night.repository.root, lab.path)
    lab.night.scored("LR = 0.4\n", 0.8)
    lab.night.settle()
    head = lab.night.champion.head()
    with pytest.raises(BadInput, match="has commits that the backup does not have"):
        restore(empty, lab.night.repository.root, read_backup(lab.path))
    assert lab.night.champion.head() == head and Ledger.campaigns(empty) == []


def test_a_branch_that_is_behind_is_brought_forward(lab: Lab, empty: redis.Redis) -> None:
    back_up(lab.client, lab.night.repository.root, lab.path)
    head = lab.night.champion.head()
    lab.night.repository.git("update-ref", lab.night.champion.ref, lab.night.start)
    restore(empty, lab.night.repository.root, read_backup(lab.path))
    assert lab.night.champion.head() == head


def test_a_backup_replaces_an_older_one_in_one_step(lab: Lab) -> None:
    lab.path.write_text("old")
    back_up(lab.client, lab.night.repository.root, lab.path)
    assert json.loads(lab.path.read_text().splitlines()[0])["campaigns"] == ["night"]
    assert [path.name for path in lab.path.parent.iterdir() if path.name.startswith(".")] == []
