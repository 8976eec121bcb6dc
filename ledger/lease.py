"""Leases: who may use a device, for how long, and under which fencing token.

A lease ends by the Redis server's clock unless it is renewed. Each one has a higher fence than the one before, and a
result counts only under the fence that is current, so a holder that was paused and wakes up late changes nothing
(Kleppmann, "How to do distributed locking", 2016).
"""

import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, NamedTuple

import redis

import failpoint
from ledger import scripts
from records import HostFault

QUARANTINE = "autoresearch:quarantine"


class LeaseHeld(HostFault):
    """Somebody else holds the device, for `remaining_s` more unless they renew it."""

    def __init__(self, device: str, holder: str, remaining_s: float):
        super().__init__(f"{device} is held by {holder} for another {remaining_s:.0f} s: wait, or stop it")
        self.remaining_s = remaining_s


class LeaseLost(HostFault):
    """The lease ran out before it was renewed."""


class Lease(NamedTuple):
    """One device, whatever the campaign. Also a lock: the launcher's is on `launcher/<campaign>`."""

    device: str
    holder: str
    fence: int


def acquire(client: redis.Redis, device: str, holder: str, ttl_s: float) -> Lease:
    """Raises LeaseHeld, which says who holds the device and for how long, or Quarantined, which says why nobody may."""
    fence, *held = scripts.run(client, "acquire_lease", device, holder, milliseconds(ttl_s))
    if held:
        current, remaining_ms = held
        raise LeaseHeld(device, current.partition(" ")[2], remaining_ms / 1000)
    return Lease(device, holder, fence)


def renew(client: redis.Redis, lease: Lease, ttl_s: float) -> None:
    """Let the lease last `ttl_s` from now. Raises LeaseLost."""
    if not scripts.run(client, "renew_lease", lease.device, lease.fence, lease.holder, milliseconds(ttl_s)):
        raise LeaseLost(f"the lease on {lease.device} ran out; whoever holds it now goes on")


def release(client: redis.Redis, lease: Lease) -> None:
    """End the lease; nothing happens if it is over already."""
    scripts.run(client, "release_lease", lease.device, lease.fence, lease.holder)


def quarantine(client: redis.Redis, lease: Lease, reason: str) -> None:
    """Say that the leased device cannot be used: after this lease there is no other until `lift_quarantine`.

    Raises:
        StaleFence: the lease was over already, so that somebody else may use the device.
    """
    scripts.run(client, "quarantine", lease.device, lease.fence, lease.holder, reason)


def quarantines(client: redis.Redis) -> dict[str, str]:
    """Why each device in quarantine cannot be leased."""
    reader: Any = client
    found: dict[str, str] = reader.hgetall(QUARANTINE)
    return found


def lift_quarantine(client: redis.Redis, device: str) -> None:
    client.hdel(QUARANTINE, device)


def milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


class Keeper:
    """Renews a lease every third of its time, in a thread, from construction until `close`.

    `lost` is set as soon as the lease is over or could not be renewed in time; the holder must then stop.
    """

    def __init__(self, client: redis.Redis, lease: Lease, ttl_s: float):
        self.client = client
        self.lease = lease
        self.ttl_s = ttl_s
        self.lost = threading.Event()
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self.keep, name=f"lease {lease.device}", daemon=True)
        self.thread.start()

    def keep(self) -> None:
        safe_until = time.monotonic() + self.ttl_s
        while not self.closing.wait(self.ttl_s / 3):
            asked_at = time.monotonic()
            try:
                failpoint.reach("lease.renewing")
                renew(self.client, self.lease, self.ttl_s)
                failpoint.reach("lease.renewed")
                safe_until = asked_at + self.ttl_s
            except LeaseLost:
                break
            except (redis.RedisError, HostFault):
                # The server may be restarting: the lease is still ours for what is left of its time.
                if time.monotonic() > safe_until - self.ttl_s / 3:
                    break
        if not self.closing.is_set():
            self.lost.set()

    def close(self) -> None:
        """Stop renewing and give the lease back; without a server, it runs out by itself."""
        self.closing.set()
        self.thread.join()
        failpoint.reach("lease.closing")
        with suppress(redis.RedisError):
            release(self.client, self.lease)
        failpoint.reach("lease.released")

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def hold(client: redis.Redis, device: str, ttl_s: float = 10.0) -> Iterator[Keeper]:
    """Hold a lease for as long as the block runs.

    The lease of a holder that has died is waited for. Raises LeaseHeld as soon as the holder renews it, and Quarantined.
    """
    holder = f"{socket.gethostname()}/{os.getpid()}"
    shortest_s = math.inf
    while True:
        try:
            lease = acquire(client, device, holder, ttl_s)
            failpoint.reach("lease.acquired")
            break
        except LeaseHeld as held:
            if held.remaining_s > shortest_s:
                raise
            shortest_s = held.remaining_s
            time.sleep(0.1)
    with Keeper(client, lease, ttl_s) as keeper:
        yield keeper
