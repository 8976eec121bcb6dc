"""What the arbiter sealed lands once, exactly as it was measured; nothing else lands, whoever can write to Redis."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest
import redis

import failpoint
from ledger import Ledger, StaleFence
from ledger.champion import Champion
from ledger.intent import Intent
from ledger.lease import Keeper, Lease, LeaseLost, acquire, hold, release
from ledger.relay import Relay, relay_lease
from ledger.server import connect
from records import HostFault, State
from sandbox.receipt import Key
from tests.ledger.night import Night
from tests.ledger.samples import scored, sha256_of

TTL_S = 1.0


def intended(night: Night, source: str = "LR = 0.5\n", bpb: float = 0.9) -> Intent:
    """A winner whose intent is in the outbox."""
    id = night.scored(source, bpb)
    assert night.arbiter().step()
    return Intent.model_validate_json(night.ledger.outbox()[str(id)])


def put(night: Night, intent: Intent, experiment: int | None = None) -> None:
    """Write into the outbox, as anybody with a connection to Redis could."""
    night.ledger.client.hset(night.ledger.prefix + "outbox", experiment or intent.experiment, intent.model_dump_json())


def test_a_relay_without_work_says_so(night: Night) -> None:
    assert night.relay().step() is False


def test_the_arbiter_moves_no_ref_and_waits_until_the_relay_has(night: Night) -> None:
    intent = intended(night)
    assert night.champion.head() == night.start
    assert night.arbiter().step() is False
    assert night.relay().step()
    assert night.champion.head() == intent.commit == night.ledger.champion_commit()
    assert night.ledger.outbox() == {}


def test_what_a_delivery_repeats_or_brings_late_changes_nothing(night: Night) -> None:
    first = intended(night)
    night.relay().step()
    second = intended(night, "LR = 0.4\n", 0.8)
    for late in (first, first):
        put(night, late)
        assert night.relay().step() or night.ledger.outbox() == {}
    assert night.ledger.champion_commit() == second.commit
    night.settle()
    assert night.commits() == [first.commit, second.commit]
    assert [e.kind for e in night.ledger.events()].count("merging→merged") == 2


# ---- seals -----------------------------------------------------------------------------------------------------------


def their_commit(night: Night) -> str:
    """A commit by somebody who can write to the repository's objects, and not to the branch."""
    return night.champion.prepare(night.champion.head(), "LR = 666\n", "experiment 1: better\n")


def unsealed(night: Night, honest: Intent) -> Intent:
    return honest.model_copy(update={"seal": ""})


def of_another_commit(night: Night, honest: Intent) -> Intent:
    return honest.model_copy(update={"commit": their_commit(night), "source_sha256": sha256_of("LR = 666\n")})


def sealed_with_another_key(night: Night, honest: Intent) -> Intent:
    return of_another_commit(night, honest).sealed(Key(b"x" * 32).seal)


def of_another_campaign(night: Night, honest: Intent) -> Intent:
    """What the same lab's arbiter sealed elsewhere."""
    return honest.model_copy(update={"campaign": "day"}).sealed(night.seal)


FORGERIES = [unsealed, of_another_commit, sealed_with_another_key, of_another_campaign]


@pytest.mark.parametrize("forge", FORGERIES)
def test_an_intent_that_the_arbiter_did_not_seal_lands_nowhere(
    night: Night, forge: Callable[[Night, Intent], Intent]
) -> None:
    honest = intended(night)
    put(night, forge(night, honest))
    night.relay().step()
    assert night.champion.head() == night.start
    row = night.ledger.experiment(honest.experiment)
    assert row.state == State.PROPOSED and "not one that this lab's arbiter sealed" in row.note
    assert night.ledger.outbox() == {}


def test_with_the_labs_key_the_same_forgery_lands(night: Night) -> None:
    """The positive control: the seal is what stops it."""
    forged = of_another_commit(night, intended(night)).sealed(night.seal)
    put(night, forged)
    night.relay().step()
    assert night.champion.head() == forged.commit


@pytest.mark.parametrize("text", ["no JSON", "{}", '{"campaign": "night"}'])
def test_what_is_no_intent_is_taken_out_of_the_outbox_and_told(night: Night, text: str) -> None:
    night.ledger.client.hset(night.ledger.prefix + "outbox", "../99", text)
    night.relay().step()
    assert night.ledger.outbox() == {}
    assert [e.detail.partition(":")[0] for e in night.ledger.events() if e.kind == "intent dropped"] == ["#../99"]
    intent = intended(night)
    night.settle()
    assert night.champion.head() == intent.commit


def test_a_seal_is_no_signature_of_a_measurement() -> None:
    key, measurement = Key(b"k" * 32), scored("a", 0.9).model_copy(update={"key_id": Key(b"k" * 32).id})
    text = measurement.model_dump_json(exclude={"hmac"})
    assert (
        key.complaint(measurement.model_copy(update={"hmac": key.seal(text)})) == "its content is not what was signed"
    )


# ---- trees -----------------------------------------------------------------------------------------------------------


def more_than_train_py(night: Night) -> str:
    (night.repository.root / "README.md").write_text("and this\n")
    (night.repository.root / "train.py").write_text("LR = 0.5\n")
    return night.repository.commit("by hand")


def another_program(night: Night) -> str:
    return night.champion.prepare(night.start, "LR = 0.55\n", "experiment\n")


def over_another_parent(night: Night) -> str:
    between = night.champion.prepare(night.start, "LR = 7\n", "between\n")
    return night.champion.prepare(between, "LR = 0.5\n", "experiment\n")


def that_is_not_there(night: Night) -> str:
    return "d" * 40


@pytest.mark.parametrize("commit", [more_than_train_py, another_program, over_another_parent, that_is_not_there])
def test_a_tree_that_is_not_the_measured_one_does_not_land_even_if_it_is_sealed(
    night: Night, commit: Callable[[Night], str]
) -> None:
    honest = intended(night)
    put(night, honest.model_copy(update={"commit": commit(night)}).sealed(night.seal))
    night.relay().step()
    assert night.champion.head() == night.start
    row = night.ledger.experiment(honest.experiment)
    assert row.state == State.PROPOSED and "what would land is not what was measured" in row.note


def test_a_landed_tree_that_is_not_the_measured_one_is_never_called_merged(night: Night) -> None:
    """Somebody moves the branch to a commit of their own, and has it sealed: the check after is the last one."""
    honest = intended(night)
    theirs = night.repository.commit_on(night.champion.branch, "LR = 7\n")
    put(night, honest.model_copy(update={"commit": theirs}).sealed(night.seal))
    with pytest.raises(HostFault, match=r"is not what was measured .*git fsck"):
        night.relay().step()
    assert night.ledger.experiment(honest.experiment).state == State.MERGING


def test_a_replacement_object_does_not_change_what_git_shows_us(night: Night) -> None:
    """`git replace` lets one commit stand for another in every command that does not ask it not to."""
    intent = intended(night)
    night.repository.git("replace", intent.commit, another_program(night))
    assert "0.55" in night.repository.git("show", f"{intent.commit}:train.py")
    night.settle()
    assert night.champion.source(night.champion.head()) == "LR = 0.5\n"
    assert night.ledger.experiment(intent.experiment).state == State.MERGED


# ---- leases ----------------------------------------------------------------------------------------------------------


def test_a_relay_whose_lease_is_over_does_not_touch_the_branch(night: Night) -> None:
    intended(night)
    release(night.ledger.client, night.keeper.lease)
    with pytest.raises(LeaseLost):
        night.relay().step()
    assert night.champion.head() == night.start


def test_a_lock_of_a_git_that_was_killed_is_removed(night: Night) -> None:
    intent = intended(night)
    lock = night.repository.root / ".git" / f"{night.champion.ref}.lock"
    lock.touch()
    with pytest.raises(HostFault, match=r"night\.lock"):
        night.relay().step()
    os.utime(lock, (time.time() - 61, time.time() - 61))
    night.relay().step()
    assert night.champion.head() == intent.commit and not lock.exists()


class Yard:
    """Relays in processes of their own, over one night."""

    def __init__(self, night: Night, url: str, folder: Path):
        self.night = night
        self.url = url
        self.mark = folder / "mark"
        release(night.ledger.client, night.keeper.lease)
        self.processes: list[BaseProcess] = []

    def start(self, armed: str = "", steps_s: float = 20.0) -> BaseProcess:
        """A relay that works for a while, dying or stopping as it is told."""
        process = multiprocessing.get_context("fork").Process(
            target=relay, args=(self.url, self.night.repository.root, armed, steps_s)
        )
        process.start()
        self.processes.append(process)
        return process

    def once(self, text: str) -> str:
        return f"{text}:once={self.mark}"

    def await_stop(self) -> psutil.Process:
        """The process that has stopped itself."""
        wait_until(self.mark.exists)
        asleep = psutil.Process(int(self.mark.read_text()))
        wait_until(lambda: asleep.status() == psutil.STATUS_STOPPED)
        return asleep

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def relay(url: str, root: Path, armed: str, steps_s: float) -> None:
    """Life of a relay: like a seat, it opens everything again after a failure."""
    failpoint.arm(armed)
    ends = time.monotonic() + steps_s
    while time.monotonic() < ends:
        client = connect(url)
        try:
            with hold(client, relay_lease("night"), TTL_S) as keeper:
                worker = Relay(Ledger(client, "night"), Champion(root, "night"), keeper, Night.seal)
                while time.monotonic() < ends and not keeper.lost.is_set():
                    if not worker.step():
                        time.sleep(0.01)
        except (HostFault, redis.RedisError):
            time.sleep(0.05)
        finally:
            client.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def yard(night: Night, redis_url: str, tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(night, redis_url, tmp_path)
    yield yard
    yard.close()


def assert_landed_once(yard: Yard, intents: list[Intent]) -> None:
    night = yard.night
    wait_until(lambda: night.ledger.outbox() == {})
    assert night.commits() == [intent.commit for intent in intents]
    merged = [e.detail for e in night.ledger.events() if e.kind == "merging→merged"]
    assert merged == [intent.commit for intent in intents]
    assert night.ledger.champion_commit() == intents[-1].commit


@pytest.mark.parametrize("name", ["relay.renewed", "git.ref_moved", "relay.verified"])
def test_a_relay_that_sleeps_past_its_lease_and_wakes_doubles_nothing(yard: Yard, name: str) -> None:
    first = intended(yard.night)
    yard.start(yard.once(f"{name}:stop"))
    asleep = yard.await_stop()
    yard.start()
    wait_until(lambda: yard.night.ledger.outbox() == {})
    second = intended(yard.night, "LR = 0.4\n", 0.8)
    wait_until(lambda: yard.night.ledger.outbox() == {})
    asleep.send_signal(signal.SIGCONT)
    third = intended(yard.night, "LR = 0.3\n", 0.7)
    assert_landed_once(yard, [first, second, third])


def test_a_relay_that_wakes_up_while_its_successor_lands_the_same_commit(yard: Yard) -> None:
    """Both have looked and found the branch at the parent; one of them moves it."""
    intent = intended(yard.night)
    yard.start(yard.once("relay.renewed:stop"))
    asleep = yard.await_stop()
    second = yard.mark.with_name("second")
    yard.start(f"git.ref_moving:stop:once={second}")
    yard.mark = second
    successor = yard.await_stop()
    asleep.send_signal(signal.SIGCONT)
    wait_until(lambda: yard.night.champion.head() == intent.commit)
    successor.send_signal(signal.SIGCONT)
    assert_landed_once(yard, [intent])


def test_two_relays_at_once_land_everything_once(yard: Yard) -> None:
    relays = [yard.start() for _ in range(2)]
    intents: list[Intent] = []
    for n in range(6):
        intents.append(intended(yard.night, f"LR = 0.{9 - n}\n", 0.9 - n / 10))
        if n == 2:  # whoever works, dies
            holder = str(yard.night.ledger.client.get(f"autoresearch:lease:{relay_lease('night')}"))
            os.kill(int(holder.rpartition("/")[2]), signal.SIGKILL)
        wait_until(lambda: yard.night.ledger.outbox() == {})
    assert_landed_once(yard, intents)
    assert sum(process.is_alive() for process in relays) == 1


def test_nobody_marks_merged_without_the_relays_lease(night: Night, lease: Lease) -> None:
    intent = intended(night)
    assert night.champion.land(intent.parent, intent.commit)
    with pytest.raises(StaleFence):
        night.ledger.merged(intent.experiment, lease, intent.commit, intent.model_dump_json())
    night.relay().step()
    assert night.ledger.experiment(intent.experiment).state == State.MERGED


def test_a_relay_has_one_lease_for_each_campaign(client: redis.Redis, night: Night) -> None:
    intended(night)
    release(client, night.keeper.lease)
    other = acquire(client, relay_lease("day"), "relay", 60.0)
    with Keeper(client, other, 60.0) as keeper, pytest.raises(StaleFence):
        night.ledger.abandon_merge(
            next(iter(night.ledger.outbox())), keeper.lease._replace(device=relay_lease("night")), "no"
        )
