"""The embedded server keeps what it acknowledged, and other servers are taken only if they do."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import Ledger
from ledger.server import RedisServer, connect, open_redis
from records import BadInput, HostFault, MissingComponent
from tests.components import require
from tests.ledger.conftest import SYSTEM_SERVER, running_server
from tests.ledger.samples import campaign, idea


@pytest.fixture
def lab() -> Iterator[Path]:
    """A folder with a short path, since a socket will be in it."""
    with tempfile.TemporaryDirectory(prefix="ar-") as folder:
        yield Path(folder)


def pid_of(server: RedisServer) -> int:
    return int(server.client.info("server")["process_id"])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_embedded_server_ends_with_its_last_user(lab: Path) -> None:
    with open_redis(lab) as first:
        pid = pid_of(first)
        with open_redis(lab) as second:
            assert pid_of(second) == pid
        assert alive(pid)
    assert not alive(pid)


def test_what_was_written_is_there_at_the_next_start(lab: Path) -> None:
    with open_redis(lab) as server:
        Ledger(server.client, "night").create(campaign("night"))
    with open_redis(lab) as server:
        assert Ledger(server.client, "night").campaign() == campaign("night")


def test_only_the_user_may_reach_the_embedded_server(lab: Path) -> None:
    with open_redis(lab) as server:
        assert (lab / "redis").stat().st_mode & 0o077 == 0
        assert (lab / "redis" / "redis.sock").stat().st_mode & 0o077 == 0
        assert server.client.config_get("port") == {"port": "0"}


def test_a_killed_server_loses_nothing_that_it_acknowledged(lab: Path) -> None:
    """A writer counts what was acknowledged while the server is killed under it."""
    acknowledged: list[int] = []
    with open_redis(lab) as server:
        ledger = Ledger(server.client, "night")
        ledger.create(campaign("night"))

        def write() -> None:
            while True:
                try:
                    id = ledger.propose(idea(), author="p", roles={})
                except Exception:
                    return
                assert id is not None
                acknowledged.append(id)
                if id == 200:
                    enough.set()

        enough = threading.Event()
        writer = threading.Thread(target=write)
        writer.start()
        assert enough.wait(60)
        os.kill(pid_of(server), signal.SIGKILL)
        writer.join()
    with open_redis(lab) as server:
        rows = Ledger(server.client, "night").experiments()
        assert len(acknowledged) >= 200
        assert [row.id for row in rows][: len(acknowledged)] == acknowledged


def test_the_server_survives_its_opener_and_is_found_again(lab: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from ledger.server import open_redis
with open_redis(Path({str(lab)!r})) as server:
    server.client.set("kept", "yes")
    print(server.client.info("server")["process_id"], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    with open_redis(lab) as server:
        pid = pid_of(server)
        assert pid == int(ended.stdout)
        assert server.client.get("kept") == "yes"
    assert not alive(pid)


def test_openers_that_race_share_one_server(lab: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from ledger.server import open_redis
with open_redis(Path({str(lab)!r})) as server:
    print(server.client.info("server")["process_id"], flush=True)
    sys.stdin.read()
"""
    openers = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    pids = {opener.stdout.readline() for opener in openers if opener.stdout}
    for opener in openers:
        opener.communicate("")
        assert opener.returncode == 0
    assert len(pids) == 1
    assert not alive(int(pids.pop()))


def test_a_socket_left_by_a_dead_server_is_replaced(lab: Path) -> None:
    with open_redis(lab) as server:
        os.kill(pid_of(server), signal.SIGKILL)
    assert (lab / "redis" / "redis.sock").exists()
    with open_redis(lab) as server:
        assert server.client.ping()


def test_a_path_too_long_for_a_socket_is_refused_in_one_line(lab: Path) -> None:
    with pytest.raises(BadInput, match="too long for a Unix socket"), open_redis(lab / ("x" * 90)):
        pytest.fail("opened")


def test_a_log_that_redis_cannot_read_is_said_so(lab: Path) -> None:
    folder = lab / "redis"
    folder.mkdir()
    (folder / "appendonly.aof").write_bytes(b"this is no log of Redis\n" * 10)
    with pytest.raises(HostFault, match="is damaged: `cp "), open_redis(lab):
        pytest.fail("opened")


def test_a_log_cut_off_in_the_middle_of_a_write_is_read_up_to_there(lab: Path) -> None:
    with open_redis(lab) as server:
        for i in range(10):
            server.client.set(f"key{i}", i)
    log = lab / "redis" / "appendonly.aof"
    log.write_bytes(log.read_bytes()[:-3])
    with open_redis(lab) as server:
        assert server.client.get("key8") == "8"
        assert server.client.get("key9") is None


def test_no_server_is_said_in_one_line_without_the_password(lab: Path) -> None:
    with pytest.raises(MissingComponent, match=r"no Redis answers at redis://127\.0\.0\.1:1/0") as refused:
        connect("redis://someone:secret@127.0.0.1:1/0")
    assert "secret" not in str(refused.value)


def test_an_address_that_is_none_is_refused(lab: Path) -> None:
    with pytest.raises(BadInput, match="--redis"):
        connect("http://localhost")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["--appendonly", "no"], "appendonly is no, set it with CONFIG SET appendonly yes"),
        (["--appendonly", "yes", "--appendfsync", "everysec"], "appendfsync is everysec"),
        (
            ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "allkeys-lru"],
            "maxmemory-policy is allkeys-lru",
        ),
        (["--appendonly", "yes", "--appendfsync", "always", "--replicaof", "127.0.0.1", "1"], "is a slave"),
        (["--requirepass", "x"], "refuses this user or password"),
    ],
)
def test_a_server_that_could_lose_writes_is_refused_by_the_name_of_the_setting(
    lab: Path, settings: list[str], named: str
) -> None:
    require(SYSTEM_SERVER is not None, "redis-server is not installed: apt-get install redis-server")
    with running_server(lab, *settings) as url, pytest.raises(BadInput, match=named):
        connect(url)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["--appendonly", "yes", "--appendfsync", "always"], ""),
        (
            ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "allkeys-lru"],
            "appendfsync is everysec, set it with CONFIG SET appendfsync always; "
            "maxmemory-policy is allkeys-lru, set it with CONFIG SET maxmemory-policy noeviction",
        ),
        (
            ["--appendonly", "yes", "--appendfsync", "always", "--rename-command", "CONFIG", ""],
            "it does not let its settings be checked: allow CONFIG GET (unknown command",
        ),
    ],
)
def test_a_weak_server_is_taken_where_that_is_allowed_and_its_weakness_told(
    lab: Path, settings: list[str], told: str
) -> None:
    require(SYSTEM_SERVER is not None, "redis-server is not installed: apt-get install redis-server")
    with running_server(lab, *settings) as url, open_redis(lab / "state", url, allow_weak=True) as server:
        assert server.weakness.startswith(told) and bool(server.weakness) == bool(told)
        Ledger(server.client, "night").create(campaign("night"))
        if told:
            with pytest.raises(BadInput, match=r"could lose writes: .*\(or --allow-weak-redis\)"):
                connect(url)


def test_a_replica_that_only_reads_changes_nothing_and_says_so(lab: Path) -> None:
    require(SYSTEM_SERVER is not None, "redis-server is not installed: apt-get install redis-server")
    replica = ["--appendonly", "yes", "--appendfsync", "always", "--replicaof", "127.0.0.1", "1"]
    with running_server(lab, *replica) as url:
        client = connect(url, allow_weak=True)
        with pytest.raises(HostFault, match="read only replica"):
            Ledger(client, "night").create(campaign("night"))
        assert client.dbsize() == 0


def test_a_server_that_keeps_its_writes_is_taken(lab: Path) -> None:
    require(SYSTEM_SERVER is not None, "redis-server is not installed: apt-get install redis-server")
    with (
        running_server(lab, "--appendonly", "yes", "--appendfsync", "always") as url,
        open_redis(lab / "state", url) as server,
    ):
        assert server.url == url
        assert server.client.ping()
        assert [path.name for path in (lab / "state").rglob("*")] == ["redis", "users.json"]
