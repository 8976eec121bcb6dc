"""One holder at a time, by the server's clock."""

import threading
import time

import pytest
import redis

from ledger import Quarantined, StaleFence
from ledger.lease import (
    Keeper,
    LeaseHeld,
    LeaseLost,
    acquire,
    hold,
    lift_quarantine,
    quarantine,
    quarantines,
    release,
    renew,
)
from tests.ledger.org import Org
from tests.ledger.samples import BASE, scored


def let_expire(client: redis.Redis, device: str) -> None:
    """Wait until the server has dropped the lease."""
    while client.exists(f"autoresearch:lease:{device}"):
        time.sleep(0.005)


def test_a_held_device_is_refused_with_the_holder_and_the_time(client: redis.Redis) -> None:
    acquire(client, "cpu", "host/1", 60.0)
    with pytest.raises(LeaseHeld, match="cpu is held by host/1 for another 60 s"):
        acquire(client, "cpu", "host/2", 60.0)


def test_every_lease_has_a_higher_fence(client: redis.Redis) -> None:
    first = acquire(client, "cpu", "a", 60.0)
    release(client, first)
    assert acquire(client, "cpu", "b", 60.0).fence > first.fence


def test_a_lease_runs_out_unless_it_is_renewed(client: redis.Redis) -> None:
    lease = acquire(client, "cpu", "a", 0.05)
    renew(client, lease, 0.05)
    let_expire(client, "cpu")
    with pytest.raises(LeaseLost):
        renew(client, lease, 60.0)
    acquire(client, "cpu", "b", 60.0)


def test_a_late_holder_cannot_end_the_lease_of_its_successor(client: redis.Redis) -> None:
    late = acquire(client, "cpu", "a", 0.02)
    let_expire(client, "cpu")
    successor = acquire(client, "cpu", "a", 60.0)
    release(client, late)
    renew(client, successor, 60.0)


def test_a_paused_runner_whose_lease_ran_out_cannot_record(org: Org, client: redis.Redis) -> None:
    org.queued("a")
    paused = acquire(client, "cuda:0", "paused", 0.05)
    experiment = org.ledger.take(paused, BASE)
    assert experiment is not None
    let_expire(client, "cuda:0")
    with pytest.raises(StaleFence):
        org.ledger.record(experiment.id, paused, scored("a", 0.1))
    assert org.ledger.experiment(experiment.id).measurements == []


def test_a_kept_lease_outlives_its_time(client: redis.Redis) -> None:
    with Keeper(client, acquire(client, "cpu", "a", 0.3), 0.3) as keeper:
        assert not keeper.lost.wait(1.0)
        with pytest.raises(LeaseHeld):
            acquire(client, "cpu", "b", 60.0)
    acquire(client, "cpu", "b", 60.0)


def test_a_keeper_says_when_its_lease_is_lost(client: redis.Redis) -> None:
    keeper = Keeper(client, acquire(client, "cpu", "a", 0.3), 0.3)
    release(client, keeper.lease)
    successor = acquire(client, "cpu", "b", 60.0)
    assert keeper.lost.wait(10.0)
    keeper.close()
    renew(client, successor, 60.0)


def test_a_lock_is_refused_while_its_holder_lives(client: redis.Redis) -> None:
    with hold(client, "launcher/night", 0.5), pytest.raises(LeaseHeld), hold(client, "launcher/night", 0.5):
        pytest.fail("two launchers")


def test_a_lock_of_a_holder_that_died_is_taken_over_when_it_runs_out(client: redis.Redis) -> None:
    acquire(client, "launcher/night", "dead/1", 0.3)
    with hold(client, "launcher/night", 0.5) as keeper:
        assert keeper.lease.fence == 2


def test_only_one_of_16_threads_gets_a_lease(client: redis.Redis) -> None:
    won: list[int] = []
    barrier = threading.Barrier(16)

    def compete(index: int) -> None:
        barrier.wait()
        try:
            acquire(client, "cpu", str(index), 60.0)
        except LeaseHeld:
            return
        won.append(index)

    threads = [threading.Thread(target=compete, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_device_in_quarantine_is_leased_to_nobody_until_that_is_lifted(org: Org, client: redis.Redis) -> None:
    org.queued("a")
    lease = acquire(client, "GPU-1", "runner", 60.0)
    experiment = org.ledger.take(lease, BASE)
    assert experiment is not None
    quarantine(client, lease, "1011 MiB are still held")
    org.ledger.record(experiment.id, lease, scored("a", 2.0))  # what was measured before is not lost
    release(client, lease)
    assert quarantines(client) == {"GPU-1": "1011 MiB are still held"}
    with pytest.raises(Quarantined, match="GPU-1 is in quarantine: 1011 MiB are still held"):
        acquire(client, "GPU-1", "runner", 60.0)
    acquire(client, "GPU-2", "runner", 60.0)
    lift_quarantine(client, "GPU-1")
    assert acquire(client, "GPU-1", "runner", 60.0).fence > lease.fence


def test_a_late_holder_cannot_put_the_device_of_its_successor_into_quarantine(client: redis.Redis) -> None:
    late = acquire(client, "GPU-1", "a", 0.02)
    let_expire(client, "GPU-1")
    acquire(client, "GPU-1", "b", 60.0)
    with pytest.raises(StaleFence):
        quarantine(client, late, "something")
    assert quarantines(client) == {}
