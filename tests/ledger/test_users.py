"""Redis itself refuses what a role may not do, and nothing is written then; who may do it can."""

import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from redis.exceptions import NoPermissionError

from ledger import Ledger
from ledger.arbiter import Arbiter
from ledger.champion import Champion
from ledger.inspection import inspect
from ledger.lease import Lease, acquire, hold, lift_quarantine, quarantine, release, renew
from ledger.relay import Relay, relay_lease
from ledger.server import RedisServer, connect, join, open_redis
from ledger.users import RIGHTS, Users, login
from records import BadInput, MissingComponent, State, Verdict
from sandbox.receipt import Key
from tests.components import require
from tests.ledger.conftest import SYSTEM_SERVER, running_server
from tests.ledger.org import AGAIN, BASELINE, Org
from tests.ledger.repository import START, Repository
from tests.ledger.samples import APPROVED, BASE, campaign, idea, program, scored

USERS = (*RIGHTS, "owner")
KEEPS = ("--appendonly", "yes", "--appendfsync", "always")
REFUSED = r"no permissions|executing the script can't|ACL failure"
NEXT = "c" * 40
YES = Verdict(merge=True, rule="test", champion_bpb=1.0, candidate_bpb=0.9, reason="lower")
NO = Verdict(merge=False, rule="test", champion_bpb=1.0, candidate_bpb=1.1, reason="higher")


@pytest.fixture(scope="module", params=["embedded", "system"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="ar-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if request.param == "embedded":
            with open_redis(folder) as opened:
                yield opened
            return
        require(SYSTEM_SERVER is not None, "redis-server is not installed: apt-get install redis-server")
        with running_server(folder, *KEEPS) as url, open_redis(folder / "state", url) as opened:
            yield opened


class World(NamedTuple):
    """A campaign whose start is measured, with the device leased, and everybody's connection to it."""

    server: RedisServer
    org: Org
    """The owner's hands, which bring an experiment to where a step starts."""
    lease: Lease
    relay: Lease

    def client(self, user: str) -> Any:
        return self.server.client if user == "owner" else join(self.server.logins[user])

    def ledger(self, user: str) -> Ledger:
        return Ledger(self.client(user), "night", join(self.server.logins["reader"]))

    def stored(self) -> dict[str, object]:
        """Everything that the server holds, whatever order its tables have."""
        client: Any = self.server.client
        read: dict[str, Callable[[str], object]] = {
            "string": client.get,
            "hash": client.hgetall,
            "list": lambda key: client.lrange(key, 0, -1),
            "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        }
        return {key: read[client.type(key)](key) for key in client.scan_iter()}


@pytest.fixture
def world(server: RedisServer) -> World:
    server.client.flushall()
    ledger = Ledger(server.client, "night")
    ledger.create(campaign("night"))
    lease = acquire(server.client, "cpu", "runner", 600.0)
    org = Org(ledger, lease)
    org.baseline()
    return World(server, org, lease, org.relay())


# ---- every step, by everybody ------------------------------------------------------------------------------------------

Prepare = Callable[[World], int]
Step = Callable[[World, str, int], object]


def merging(world: World) -> int:
    id = world.org.scored("a", 0.9)
    world.org.intend(id, YES, NEXT)
    return id


def scored_baseline(world: World) -> int:
    id = world.org.ledger.propose_baseline(program("by hand", NEXT))
    world.org.take(NEXT)
    world.org.ledger.record(id, world.lease, scored("by hand", 0.9))
    return id


def orphan(world: World) -> int:
    world.org.queued("a")
    lost = acquire(world.server.client, "lost", "runner", 600.0)
    taken = world.org.ledger.take(lost, BASE)
    release(world.server.client, lost)
    assert taken is not None
    return taken.id


def nothing(world: World) -> int:
    return 0


STEPS: dict[str, tuple[set[str], Prepare, Step]] = {
    "propose": (
        {"agent"},
        nothing,
        lambda w, user, _: w.ledger(user).propose(idea(), author="p", roles={"p": "1"}, max_open=5),
    ),
    "claim": ({"agent"}, lambda w: w.org.propose(), lambda w, user, _: w.ledger(user).claim("me")),
    "release": ({"agent"}, lambda w: w.org.claimed(), lambda w, user, id: w.ledger(user).release(id)),
    "take back": ({"agent"}, lambda w: w.org.claimed(), lambda w, user, id: w.ledger(user).take_back("coder")),
    "refuse": ({"agent"}, lambda w: w.org.claimed(), lambda w, user, id: w.ledger(user).refuse(id, "no", {"c": "1"})),
    "code": ({"agent"}, lambda w: w.org.claimed(), lambda w, user, id: w.ledger(user).code(id, program("a"), {})),
    "code a duplicate": (
        {"agent"},
        lambda w: w.org.claimed(),
        lambda w, user, id: w.ledger(user).code(id, program(BASELINE), {}),
    ),
    "approve": ({"agent"}, lambda w: w.org.coded("a"), lambda w, user, id: w.ledger(user).review(id, APPROVED, {})),
    "take": ({"runner"}, lambda w: w.org.queued("a"), lambda w, user, _: w.ledger(user).take(w.lease, BASE)),
    "take after a merge": (
        {"runner"},
        lambda w: w.org.queued("a"),
        lambda w, user, _: w.ledger(user).take(w.lease, NEXT),
    ),
    "tell the progress": (
        {"runner"},
        lambda w: w.org.running("a"),
        lambda w, user, id: w.ledger(user).progress(id, w.lease, "training", None),
    ),
    "take the second run": (
        {"runner"},
        lambda w: w.org.confirming("a", 0.9),
        lambda w, user, _: w.ledger(user).take(w.lease, BASE),
    ),
    "record": (
        {"runner"},
        lambda w: w.org.running("a"),
        lambda w, user, id: w.ledger(user).record(id, w.lease, scored("a", 0.1)),
    ),
    "requeue": ({"runner"}, orphan, lambda w, user, _: w.ledger(user).requeue_orphans()),
    "propose a baseline": (
        {"arbiter"},
        nothing,
        lambda w, user, _: w.ledger(user).propose_baseline(program("by hand", NEXT)),
    ),
    "propose a repeat": (
        {"arbiter"},
        nothing,
        lambda w, user, _: w.ledger(user).propose_repeat(program(BASELINE, BASE), 1, 0),
    ),
    "pool": ({"arbiter"}, lambda w: w.org.repeat(1.1), lambda w, user, id: w.ledger(user).pool(id)),
    "unseat": ({"arbiter"}, nothing, lambda w, user, _: w.ledger(user).unseat(1, "drift")),
    "confirm": ({"arbiter"}, lambda w: w.org.scored("a", 0.9), lambda w, user, id: w.ledger(user).confirm(id, AGAIN)),
    "find it within the noise": (
        {"arbiter"},
        lambda w: w.org.scored("a", 1.0),
        lambda w, user, id: w.ledger(user).discard(id, NO.model_copy(update={"within_noise": True})),
    ),
    "rebase what waits for its second run": (
        {"arbiter"},
        lambda w: w.org.confirming("a", 0.9),
        lambda w, user, id: w.ledger(user).rebase(id, "moved"),
    ),
    "crown": ({"arbiter"}, scored_baseline, lambda w, user, id: w.ledger(user).crown(id, NEXT)),
    "discard": ({"arbiter"}, lambda w: w.org.scored("a", 1.1), lambda w, user, id: w.ledger(user).discard(id, NO)),
    "rebase": ({"arbiter"}, lambda w: w.org.scored("a", 1.1), lambda w, user, id: w.ledger(user).rebase(id, "moved")),
    "intend a merge": (
        {"arbiter"},
        lambda w: w.org.scored("a", 0.9),
        lambda w, user, id: Org(w.ledger(user), w.lease).intend(id, YES, NEXT),
    ),
    "merge": (
        {"arbiter"},
        merging,
        lambda w, user, id: w.ledger(user).merged(id, w.relay, NEXT, w.org.ledger.outbox()[str(id)]),
    ),
    "abandon a merge": (
        {"arbiter"},
        merging,
        lambda w, user, id: w.ledger(user).abandon_merge(id, w.relay, "moved"),
    ),
    "lease": ({"lease"}, nothing, lambda w, user, _: acquire(w.client(user), "gpu", "me", 600.0)),
    "renew": ({"lease"}, nothing, lambda w, user, _: renew(w.client(user), w.lease, 900.0)),
    "end a lease": ({"lease"}, nothing, lambda w, user, _: release(w.client(user), w.lease)),
    "quarantine": ({"lease"}, nothing, lambda w, user, _: quarantine(w.client(user), w.lease, "in use")),
    "lift a quarantine": ({"lease"}, nothing, lambda w, user, _: lift_quarantine(w.client(user), "gpu")),
    "stop": ({"lease"}, nothing, lambda w, user, _: w.ledger(user).set_stop("enough")),
    "go on": (set(), nothing, lambda w, user, _: w.ledger(user).clear_stop()),
    "begin": (set(), nothing, lambda w, user, _: Ledger(w.client(user), "other").create(campaign("other"))),
    "note": ({"agent", "runner", "arbiter"}, nothing, lambda w, user, _: w.ledger(user).note("replay", "of #1")),
}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_taken_by_those_whose_it_is_and_leaves_no_trace_by_others(world: World, name: str, user: str) -> None:
    allowed, prepare, step = STEPS[name]
    id = prepare(world)
    before = world.stored()
    if user in allowed | {"owner"}:
        step(world, user, id)
        assert name in ("renew", "lift a quarantine", "go on") or world.stored() != before
    else:
        with pytest.raises(NoPermissionError):
            step(world, user, id)
        assert world.stored() == before


# ---- commands ----------------------------------------------------------------------------------------------------------

P = "autoresearch:campaign:night:"
DANGEROUS = [
    *("FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "DBSIZE", "RANDOMKEY", "SAVE", "BGSAVE", "BGREWRITEAOF", "MONITOR"),
    *("CONFIG GET *", "CONFIG SET appendonly no", "CONFIG SET requirepass x", "CONFIG REWRITE", "SHUTDOWN NOSAVE"),
    *(
        "DEBUG SLEEP 0",
        "DEBUG SEGFAULT",
        "REPLICAOF 127.0.0.1 1",
        "SWAPDB 0 1",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
    ),
    *(
        "ACL LIST",
        "ACL GETUSER owner",
        "ACL SETUSER me on nopass ~* +@all",
        "ACL DELUSER reader",
        "ACL SAVE",
        "ACL LOG",
    ),
    *("SCRIPT FLUSH", "SCRIPT KILL", "MODULE LIST", "SLOWLOG GET", "LATENCY RESET", "SUBSCRIBE x", "PUBLISH x y"),
    *(f"DEL {P}experiment:1", f"UNLINK {P}experiment:1", f"RENAME {P}experiment:1 {P}experiment:2", f"DUMP {P}events"),
    *(f"LSET {P}events 0 x", f"LTRIM {P}events 0 0", f"LREM {P}events 1 x", f"LPOP {P}events", f"RPOP {P}events"),
    *(f"LINSERT {P}events BEFORE x y", f"LPUSH {P}events x", f"DEL {P}events", f"RENAME {P}events x"),
    *(f"EXPIRE {P}events 1", f"RESTORE {P}events 0 x REPLACE", f"COPY {P}events x", f"MIGRATE h 1 {P}events 0 1"),
    *(f"SORT {P}events STORE {P}events", f"LMOVE {P}events {P}events LEFT RIGHT", f"RPOPLPUSH {P}events {P}events"),
]


@pytest.mark.parametrize("user", RIGHTS)
def test_nobody_but_the_owner_may_give_a_command_that_loses_changes_or_tells_what_is_not_theirs(
    world: World, user: str
) -> None:
    client, before = world.client(user), world.stored()
    for command in DANGEROUS:
        # Since Redis 7, DEBUG is nobody's, whatever their rights.
        with pytest.raises(redis.ResponseError, match=r"no permissions|DEBUG command not allowed"):
            client.execute_command(*command.split())
    assert world.stored() == before


def test_the_owner_can_cut_and_alter_history_which_is_why_nobody_works_as_the_owner(world: World) -> None:
    for command in (f"LSET {P}events 0 x", f"LREM {P}events 1 x", f"LTRIM {P}events 1 1", f"DEL {P}events", "FLUSHALL"):
        before = world.stored()
        world.client("owner").execute_command(*command.split())
        assert world.stored() != before


OTHERS_KEYS = [
    ("HSET verdict:2 verdict {}", {"arbiter"}),
    ("HSET verdict:2 commit x", {"arbiter"}),
    ("HSET champion commit x", {"arbiter"}),
    ("HSET outbox 2 {}", {"arbiter"}),
    ("HSET baselines x 2", {"arbiter"}),
    ("ZADD lane:baseline 2 2", {"arbiter"}),
    ("ZADD state:merging 2 2", {"arbiter"}),
    ("ZADD state:merged 2 2", {"arbiter"}),
    ("ZADD state:discarded 2 2", {"arbiter"}),
    ("ZADD state:scored 2 2", {"runner", "arbiter"}),
    ("ZADD state:running 2 2", {"runner"}),
    ("ZREM state:merged 1", {"arbiter"}),
    ("RPUSH measurements:2 {}", {"runner"}),
    ("RPUSH measurements:1 {}", {"runner"}),
    ("HSET run:2 attempts 0", {"runner"}),
    ("ZADD scores 0.1 2", {"runner"}),
    ("HSET results x 2", {"runner"}),
    ("HSET spent device_ms 0", {"runner"}),
    ("HDEL spent device_ms", {"runner"}),
    ("HSET experiment:2 note x", {"agent", "runner", "arbiter"}),
    ("ZADD state:proposed 2 2", {"agent", "runner", "arbiter"}),
    ("SET stop x", {"lease"}),
    ("SET campaign {}", set[str]()),
    ("LSET measurements:1 0 {}", set[str]()),
    ("LTRIM measurements:1 1 0", set[str]()),
    ("DEL measurements:1", set[str]()),
]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(("command", "allowed"), OTHERS_KEYS)
def test_a_key_is_written_by_those_whose_it_is_with_a_plain_command_or_inside_a_script_of_their_own(
    world: World, user: str, command: str, allowed: set[str]
) -> None:
    name, key, *rest = command.split()
    client: Any = world.client(user)
    script = "return redis.call(unpack(ARGV))"
    attempts: list[Callable[[], object]] = [
        lambda: client.execute_command(name, P + key, *rest),
        lambda: client.evalsha(client.script_load(script), 0, name, P + key, *rest),
    ]
    for attempt in attempts:
        before = world.stored()
        if user in allowed | {"owner"}:
            attempt()
            continue
        with pytest.raises(redis.ResponseError, match=REFUSED):
            attempt()
        assert world.stored() == before


def test_the_global_keys_are_out_of_reach_of_agents_and_leases_are_the_lease_holders(world: World) -> None:
    for key in ("autoresearch:lease:cpu", "autoresearch:fence:cpu", "autoresearch:schema", "autoresearch:campaigns"):
        for user in ("agent", "runner", "arbiter", "reader"):
            with pytest.raises(NoPermissionError):
                world.client(user).execute_command("SET", key, "x")
    world.client("lease").set("autoresearch:lease:cpu", "x")


def test_the_reader_reads_everything_of_the_ledger_and_nothing_else(world: World) -> None:
    world.server.client.set("somebody:else", "x")
    reader = world.ledger("reader")
    assert reader.experiments() == world.org.ledger.experiments() != []
    with pytest.raises(NoPermissionError):
        world.client("reader").get("somebody:else")


# ---- a whole night -----------------------------------------------------------------------------------------------------


def test_a_night_under_everybodys_own_user_ends_as_under_the_owners(server: RedisServer, tmp_path: Path) -> None:
    server.client.flushall()
    repository = Repository(tmp_path / "lab")
    champion = Champion(repository.root, "night")
    start = champion.start(START)
    Ledger(server.client, "night").create(campaign("night", start))
    agent, runner, reader = server.ledger("night", "agent"), server.ledger("night", "runner"), server.ledger("night")
    ledger, seal = server.ledger("night", "arbiter"), Key(b"k" * 32).seal
    arbiter = Arbiter(ledger, champion, lambda _: None, seal)
    leases = join(server.logins["lease"])
    with hold(leases, "cpu") as keeper, hold(leases, relay_lease("night")) as lease:
        relay = Relay(ledger, champion, lease, seal)

        def measure(bpb: float) -> None:
            taken = runner.take(keeper.lease, champion.head())
            assert taken is not None and taken.candidate is not None
            runner.record(taken.id, keeper.lease, scored(taken.candidate.source, bpb))
            while relay.step() or arbiter.step():
                pass

        assert not arbiter.step(), "the start is queued"
        measure(1.0)
        for source, bpb in (("LR = 0.5\n", 0.9), ("LR = 9\n", 1.1), ("LR = 0.4\n", 0.8)):
            agent.propose(idea(), author="planner/test", roles={"planner": "p1"}, max_open=2)
            claimed = agent.claim("coder")
            assert claimed is not None
            agent.code(claimed.id, program(source, champion.head()), {"coder": "c1"})
            coded = agent.next_coded()
            assert coded is not None
            agent.review(coded.id, APPROVED, {"reviewer": "r1"})
            measure(bpb)
    assert [e.state for e in reader.experiments()] == [State.MERGED, State.MERGED, State.DISCARDED, State.MERGED]
    assert reader.spent()[:4] == (3, 3, 3, 0)
    assert champion.source(champion.head()) == "LR = 0.4\n"
    assert [check.complaints for check in inspect(reader, champion, lambda _: None)] == [[]] * 6


# ---- how one gets in ---------------------------------------------------------------------------------------------------


@pytest.fixture
def lab() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ar-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_nobody_gets_into_the_embedded_server_without_a_password(lab: Path) -> None:
    with open_redis(lab) as server:
        path = f"unix://{lab}/redis/redis.sock"
        for url in (path, login(path, "owner", "guess"), login(path, "agent", "guess"), login(path, "default", "")):
            with pytest.raises(redis.AuthenticationError):
                join(url).get("autoresearch:schema")
        for user in RIGHTS:
            client: Any = join(server.logins[user])
            assert client.execute_command("SELECT", 0)


def test_the_passwords_lie_where_only_the_user_reads_them(lab: Path) -> None:
    with open_redis(lab) as server:
        files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (lab / "redis").glob("users.*")}
        assert (files["users.json"], files["users.acl"]) == (0o600, 0o600)
        users = Users.of(lab / "redis")
        assert len(set(users.passwords.values())) == len(USERS)
        owners = users.passwords["owner"]
        assert owners in server.url
        assert not any(owners in url for url in server.logins.values())
        command_line = Path(f"/proc/{server.client.info('server')['process_id']}/cmdline").read_bytes()
        assert not any(password.encode() in command_line for password in users.passwords.values())


def test_a_running_server_is_opened_again_with_the_same_passwords_and_brought_up_to_date(lab: Path) -> None:
    with open_redis(lab) as first:
        owner: Any = first.client
        owner.execute_command("ACL", "SETUSER", "agent", "+flushall", "~*")
        with open_redis(lab) as second:
            assert second.logins == first.logins
            with pytest.raises(NoPermissionError):
                join(first.logins["agent"]).flushall()


def test_openers_that_race_draw_one_set_of_passwords(lab: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda _: Users.of(lab / "redis"), range(8)))
    assert all(users == drawn[0] for users in drawn)
    assert [path.name for path in (lab / "redis").iterdir()] == ["users.json"]


def test_two_labs_share_a_server_without_touching_each_others_users(lab: Path) -> None:
    require(SYSTEM_SERVER is not None, "redis-server is not installed: apt-get install redis-server")
    with (
        running_server(lab, *KEEPS) as url,
        open_redis(lab / "one", url) as one,
        open_redis(lab / "two", url) as two,
    ):
        assert not set(one.logins.values()) & set(two.logins.values())
        for server, name in ((one, "first"), (two, "second")):
            Ledger(server.client, name).create(campaign(name))
            assert server.ledger(name, "agent").propose(idea(), author="p", roles={}) == 1


def test_a_server_that_lets_no_users_be_made_is_refused_or_taken_with_its_weakness_told(lab: Path) -> None:
    require(SYSTEM_SERVER is not None, "redis-server is not installed: apt-get install redis-server")
    with running_server(lab, *KEEPS) as url:
        owner: Any = connect(url)
        owner.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~*", "+@all", "-acl")
        guest = login(url, "guest", "pw")
        told = r"lets no users be made, allow ACL SETUSER .*\(or --allow-weak-redis\)"
        with pytest.raises(BadInput, match=told), open_redis(lab / "state", guest):
            pytest.fail("opened")
        with open_redis(lab / "state", guest, allow_weak=True) as server:
            assert server.weakness.startswith("anybody may write anything")
            Ledger(server.client, "night").create(campaign("night"))
            assert server.ledger("night", "agent").propose(idea(), author="p", roles={}) == 1


# ---- TLS ---------------------------------------------------------------------------------------------------------------


@contextmanager
def tls_server(folder: Path) -> Iterator[int]:
    """Port of a server that speaks TLS only and wants a password, its certificate and a stranger's beside it."""
    require(SYSTEM_SERVER is not None, "redis-server is not installed: apt-get install redis-server")
    require(shutil.which("openssl") is not None, "openssl is not installed: apt-get install openssl")
    assert SYSTEM_SERVER is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    for name in ("server", "stranger"):
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
        files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*make, *files], cwd=folder, check=True, capture_output=True)
    tls = ["--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "server.pem"]
    options = ["--port", "0", "--tls-port", str(port), *tls, "--tls-auth-clients", "no", "--requirepass", "secret"]
    command = [SYSTEM_SERVER, "--dir", str(folder), "--save", "", *KEEPS, *options]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "Ready to accept connections" in line:
                break
        require(bool(lines) and "Ready" in lines[-1], f"this redis-server does not speak TLS: {lines[-1:]}")
        yield port
    finally:
        process.kill()
        process.wait()


def test_a_server_is_reached_by_tls_with_a_password_and_its_users_too(lab: Path) -> None:
    with tls_server(lab) as port:
        address = f"127.0.0.1:{port}/0?ssl_ca_certs="
        with open_redis(lab / "state", f"rediss://:secret@{address}{lab}/server.pem") as server:
            assert server.weakness == ""
            Ledger(server.client, "night").create(campaign("night"))
            assert all(url.startswith("rediss://autoresearch-") for url in server.logins.values())
            assert server.ledger("night", "agent").propose(idea(), author="p", roles={}) == 1
            with pytest.raises(NoPermissionError):
                server.ledger("night", "reader").propose(idea(), author="p", roles={})
        for url, error, told in (
            (f"rediss://:secret@{address}{lab}/stranger.pem", MissingComponent, "certificate verify failed"),
            (f"redis://:secret@127.0.0.1:{port}/0", MissingComponent, "no Redis answers"),
            (f"rediss://:wrong@{address}{lab}/server.pem", BadInput, "refuses this user or password"),
        ):
            with pytest.raises(error, match=told) as refused:
                connect(url)
            assert "secret" not in str(refused.value) and "wrong@" not in str(refused.value)


def test_a_password_in_the_query_of_an_address_goes_to_nobody_else() -> None:
    url = "rediss://h:1/2?username=me&password=secret&ssl_ca_certs=/ca.pem"
    theirs = login(url, "agent", "pw")
    assert "secret" not in theirs and "me&" not in theirs
    kwargs = redis.Redis.from_url(theirs).connection_pool.connection_kwargs
    assert (kwargs["username"], kwargs["password"], kwargs["ssl_ca_certs"], kwargs["db"]) == (
        "agent",
        "pw",
        "/ca.pem",
        2,
    )
