"""A real Redis of each supported kind, and a campaign in it."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from ledger import Ledger
from ledger.lease import Lease, acquire
from ledger.server import connect, open_redis
from tests.components import require
from tests.ledger.night import Night
from tests.ledger.org import Org
from tests.ledger.repository import Repository
from tests.ledger.samples import campaign

SYSTEM_SERVER = shutil.which("redis-server")


@pytest.fixture(scope="session", params=["embedded", "system"])
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The embedded server (6.2), and the newer one that Debian installs."""
    with tempfile.TemporaryDirectory(prefix="ar-", ignore_cleanup_errors=True) as folder:
        if request.param == "embedded":
            with open_redis(Path(folder)) as server:
                yield server.url
            return
        require(SYSTEM_SERVER is not None, "redis-server is not installed: apt-get install redis-server")
        with running_server(Path(folder), "--appendonly", "yes", "--appendfsync", "always") as url:
            yield url


@contextmanager
def running_server(folder: Path, *settings: str) -> Iterator[str]:
    """URL of a system redis-server with these settings, as long as the block runs."""
    assert SYSTEM_SERVER is not None
    path = folder / "s.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--dir", str(folder), "--save", "", *settings]
    process = subprocess.Popen([SYSTEM_SERVER, *options], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            assert process.poll() is None, "redis-server did not start"
            time.sleep(0.02)
        yield f"unix://{path}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    ledger = Ledger(client, "night")
    ledger.create(campaign("night"))
    return ledger


@pytest.fixture
def lease(client: redis.Redis) -> Lease:
    return acquire(client, "cpu", "runner", 60.0)


@pytest.fixture
def org(ledger: Ledger, lease: Lease) -> Org:
    return Org(ledger, lease)


@pytest.fixture
def night(client: redis.Redis, lease: Lease, tmp_path: Path) -> Night:
    return Night(client, lease, Repository(tmp_path / "lab"))
