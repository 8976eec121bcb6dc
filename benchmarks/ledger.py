"""What the ledger can do: decisions per second, their latency, lists of many experiments, memory of one.

    python benchmarks/ledger.py decisions lists memory
    python benchmarks/ledger.py decisions --folder /mnt/disk --clients 1 8 64

A decision is all that the ledger does when arbiter and relay dispose of one scored experiment: `discard`, or, for one in ten,
`intend_merge` and `merged`. Its ceiling is a script of one GET and one SET on the same server, called in the same way, in turns with the
decisions. Every write is on disk before its answer (appendfsync always). Clients are connections that ask, wait and ask again (closed
loop), or ask at fixed times (paced: latency counts from when the call was due), each in a campaign of its own. One process plays
them all, with commands that were packed before. Experiments are laid in by the ledger's own transitions.
"""

import argparse
import hashlib
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from select import EPOLLIN, epoll
from typing import Any, NamedTuple

import hiredis
import redis

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger import Intent, Ledger, scripts
from ledger.lease import Lease, acquire
from ledger.relay import relay_lease
from ledger.selection import Order, Selection, find
from ledger.server import SOCKET, open_redis
from ledger.users import Users
from records import State, Verdict
from tests.ledger.samples import APPROVED, BASE, campaign, idea, program, scored

ROOT = Path(__file__).parents[1]
BARE = "return redis.call('SET', ARGV[1], redis.call('GET', ARGV[1]) or ARGV[2])"
MERGE_EVERY = 10
TTL_S = 36_000.0
NO = Verdict(merge=False, rule="keep-if-lower", champion_bpb=1.0, candidate_bpb=1.1, reason="1.100000 bpb is not lower than the champion's 1.000000 (+0.100000)")  # fmt: skip
YES = Verdict(merge=True, rule="keep-if-lower", champion_bpb=1.0, candidate_bpb=0.9, reason="0.900000 bpb is lower than the champion's 1.000000 (-0.100000)")  # fmt: skip

Commands = list[bytes]


# ---- commands --------------------------------------------------------------------------------------------------------


class Tape:
    """A client that performs nothing, and keeps the packed scripts that a ledger would call."""

    def __init__(self) -> None:
        self.commands: Commands = []

    def register_script(self, text: str) -> Callable[..., None]:
        def call(keys: Sequence[str], args: Sequence[Any]) -> None:
            self.commands.append(packed(text, *args))

        return call


def packed(script: str, *args: Any) -> bytes:
    sha1 = hashlib.sha1(script.encode()).hexdigest()
    command: bytes = hiredis.pack_command(("EVALSHA", sha1, "0", *map(str, args)))
    return command


def taped(name: str) -> tuple[Ledger, Commands]:
    """A ledger, and where its calls end up."""
    tape: Any = Tape()
    return Ledger(tape, name), tape.commands


class Size(NamedTuple):
    """Of the texts of an experiment."""

    source: str
    diff: str
    log_tail: str


SMALL = Size("LR = 1.0\n", "+LR = 1.0\n", "")


def usual() -> Size:
    """As in a night: this repository's train.py, a diff of 20 lines, the end of a log."""
    source = (ROOT / "train.py").read_text(encoding="utf-8")
    return Size(source, "\n".join(source.splitlines()[:20]), "step 100 | loss 3.2141 | 1.9 M tokens/s\n" * 50)


def scored_experiments(name: str, ids: range, lease: Lease, size: Size) -> Commands:
    """From the idea to the score."""
    ledger, commands = taped(name)
    for id in ids:
        source = f"{size.source}# {id}\n"
        candidate = program(source).model_copy(update={"diff": size.diff})
        measurement = scored(source, 1.0 + id / 1e6, f"{name}-{id}")
        ledger.propose(idea(), author="planner/sampler", roles={"planner": "a" * 64})
        ledger.claim("coder")
        ledger.code(id, candidate, {"coder": "b" * 64})
        ledger.review(id, APPROVED, {"reviewer": "c" * 64})
        ledger.take(lease, BASE)
        ledger.record(id, lease, measurement.model_copy(update={"seed": id, "log_tail": size.log_tail}))
    return commands


def decisions(name: str, ids: range, relay: Lease) -> list[Commands]:
    """For each experiment what disposes of it; each merge is measured as if the champion were still the start."""
    found: list[Commands] = []
    parent = BASE
    for id in ids:
        ledger, commands = taped(name)
        if id % MERGE_EVERY:
            ledger.discard(id, NO)
        else:
            commit = hashlib.sha1(f"{name} {id}".encode()).hexdigest()
            intent = Intent(campaign=name, experiment=id, parent=parent, commit=commit, source_sha256="0" * 64)
            intent = intent.sealed(lambda text: hashlib.sha256(text.encode()).hexdigest())
            ledger.intend_merge(YES, intent)
            ledger.merged(id, relay, commit, intent.model_dump_json())
            parent = commit
        found.append(commands)
    return found


# ---- playing them ----------------------------------------------------------------------------------------------------


PASSWORDS: dict[str, str] = {}
"""Of the owner, by socket."""


class Line:
    """One client's connection."""

    def __init__(self, path: str):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.reader = hiredis.Reader()
        self.asked_at = 0.0
        self.socket.sendall(hiredis.pack_command(("AUTH", "owner", PASSWORDS[path])))
        assert next(self.answers()) == b"OK"

    def answers(self) -> Iterator[Any]:
        self.reader.feed(self.socket.recv(1 << 20))
        while (answer := self.reader.gets()) is not False:
            if isinstance(answer, Exception):
                raise answer
            yield answer


def lay_in(path: str, commands: Commands) -> None:
    """Send many commands without waiting for each."""
    line = Line(path)
    for start in range(0, len(commands), 200):
        some = commands[start : start + 200]
        line.socket.sendall(b"".join(some))
        count = 0
        while count < len(some):
            count += sum(1 for _ in line.answers())


def play(path: str, parts: list[Commands], per_s: float | None = None) -> tuple[float, list[float]]:
    """Every client sends its commands one after the other.

    Args:
        path: the server's socket.
        parts: for each client.
        per_s: calls of all together, at fixed times; None for as many as there can be.

    Returns:
        Seconds for all; seconds of each call, from when it was sent, or was due.
    """
    lines = {(line := Line(path)).socket.fileno(): (line, iter(part)) for part in parts}
    poll, latencies, open_lines = epoll(), [], len(lines)
    period_s = len(lines) / per_s if per_s else 0.0
    idle: list[int] = []
    start = time.perf_counter()
    for i, (number, (line, _)) in enumerate(lines.items()):
        poll.register(number, EPOLLIN)
        line.asked_at = start + period_s * (i / len(lines) - 1)
        idle.append(number)
    while open_lines:
        now = time.perf_counter()
        waiting: list[int] = []
        for number in idle:
            line, commands = lines[number]
            due = line.asked_at + period_s if period_s else now
            if due > now:
                waiting.append(number)
            elif (command := next(commands, None)) is None:
                open_lines -= 1
            else:
                line.asked_at = due
                line.socket.sendall(command)
        idle = waiting
        for number, _ in poll.poll(0.0 if idle else 1.0):
            line, _ = lines[number]
            for _ in line.answers():
                latencies.append(time.perf_counter() - line.asked_at)
                idle.append(number)
    return time.perf_counter() - start, latencies


# ---- what is measured ------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, client: redis.Redis, path: str):
        self.client: Any = client
        self.path = path
        client.config_set("auto-aof-rewrite-percentage", "0")
        for file in scripts.FOLDER.glob("*.lua"):
            client.script_load(scripts.source(file.stem))
        client.script_load(BARE)

    def campaign(self, name: str) -> Lease:
        """A campaign whose start is the champion. Returns the lease of a device."""
        ledger = Ledger(self.client, name)
        ledger.create(campaign(name))
        lease = acquire(self.client, f"gpu-{name}", "runner", TTL_S)
        id = ledger.propose_baseline(program("start"))
        ledger.take(lease, BASE)
        ledger.record(id, lease, scored("start", 1.0))
        ledger.crown(id, BASE)
        return lease

    @contextmanager
    def unsynced(self) -> Iterator[None]:
        """While experiments are laid in."""
        self.client.config_set("appendfsync", "no")
        yield
        self.client.config_set("appendfsync", "always")

    def fsync_ms(self, folder: Path) -> float:
        """Of 4 KiB appended to a file there, median."""
        took = []
        with (folder / "fsync").open("wb") as file:
            for _ in range(200):
                file.write(os.urandom(4096))
                file.flush()
                start = time.perf_counter()
                os.fdatasync(file.fileno())
                took.append(time.perf_counter() - start)
        return statistics.median(took) * 1e3

    # ---- decisions ---------------------------------------------------------------------------------------------------

    def decisions(self, clients: int, each: int, repeats: int) -> None:
        bare_rates, rates, bare_latencies, latencies = [], [], [], []
        names = [f"d{clients}-{i}" for i in range(clients)]
        with self.unsynced():
            devices = [self.campaign(name) for name in names]
            relays = [acquire(self.client, relay_lease(name), "relay", TTL_S) for name in names]
            ids = range(2, 2 + each * (repeats + 1))
            for name, device in zip(names, devices, strict=True):
                lay_in(self.path, scored_experiments(name, ids, device, SMALL))
        prepared = [decisions(name, ids, relay) for name, relay in zip(names, relays, strict=True)]
        bare = [[packed(BARE, f"bare:{name}", "x" * 200)] * each for name in names]
        for repeat in range(repeats):
            wall_s, took = play(self.path, bare)
            bare_rates.append(len(took) / wall_s)
            bare_latencies += took
            parts = [self.part(decided, repeat, each) for decided in prepared]
            self.client.config_resetstat()
            bytes_before = self.aof_bytes()
            wall_s, took = play(self.path, parts)
            rates.append(clients * each / wall_s)
            latencies += took
            stats, grown = self.client.info("commandstats"), self.aof_bytes() - bytes_before
        calls = sum(v["calls"] for k, v in stats.items() if k not in ("cmdstat_evalsha", "cmdstat_info", "cmdstat_config|resetstat", "cmdstat_config"))  # fmt: skip
        rate, bare_rate = statistics.median(rates), statistics.median(bare_rates)
        print(f"\n{clients} clients: {rate:,.0f} decisions/s of {bare_rate:,.0f} bare scripts/s: {rate / bare_rate:.0%}"
              f" (each: {spread(rates)} of {spread(bare_rates)})")  # fmt: skip
        print(f"  a decision: {calls / clients / each:.1f} redis.call, {grown / clients / each:,.0f} bytes of log; "
              f"a transition: {stats['cmdstat_evalsha']['usec_per_call']:.0f} µs of the server's time")  # fmt: skip
        print(f"  closed loop, ms: transition {quantiles(latencies)}, bare {quantiles(bare_latencies)}")
        parts = [self.part(decided, repeats, each) for decided in prepared]
        per_s = rate / 2
        _, took = play(self.path, parts, per_s)
        _, bare_took = play(self.path, bare, per_s)
        print(f"  paced at {per_s:,.0f}/s, ms: transition {quantiles(took)}, bare {quantiles(bare_took)}")

    @staticmethod
    def part(decided: list[Commands], number: int, each: int) -> Commands:
        return [command for commands in decided[number * each : (number + 1) * each] for command in commands]

    def aof_bytes(self) -> int:
        return int(self.client.info("persistence")["aof_current_size"])

    # ---- many experiments --------------------------------------------------------------------------------------------

    def lists(self, sizes: list[int]) -> None:
        print("\nexperiments, ms: " + ", ".join(LOOKS))
        for size in sizes:
            name = f"l{size}"
            ledger, ids = Ledger(self.client, name), range(2, size + 2)
            with self.unsynced():
                device, relay = self.campaign(name), acquire(self.client, relay_lease(name), "relay", TTL_S)
                for start in range(2, size + 2, 1000):
                    some = range(start, min(start + 1000, ids.stop))
                    lay_in(self.path, scored_experiments(name, some, device, SMALL))
                lay_in(self.path, [c for commands in decisions(name, ids, relay) for c in commands])
            print(f"  {size:>7,}: " + ", ".join(f"{timed(look, ledger):.2f}" for look in LOOKS.values()), flush=True)

    def memory(self, count: int) -> None:
        with self.unsynced():
            device, relay = self.campaign("m"), acquire(self.client, relay_lease("m"), "relay", TTL_S)
            before, size = self.used_bytes(), usual()
            for start in range(2, count + 2, 200):
                some = range(start, min(start + 200, count + 2))
                lay_in(self.path, scored_experiments("m", some, device, size))
            lay_in(self.path, [c for commands in decisions("m", range(2, count + 2), relay) for c in commands])
            each = (self.used_bytes() - before) / count
        texts = len((size.source + size.diff + size.log_tail).encode())
        print(f"\nmemory: {each / 1e3:.1f} kB for each of {count:,} experiments, of which {texts / 1e3:.1f} kB are source, diff and log")  # fmt: skip

    def used_bytes(self) -> int:
        return int(self.client.info("memory")["used_memory"])


LOOKS: dict[str, Callable[[Ledger], object]] = {
    "the newest 20": lambda ledger: find(ledger, Selection(), limit=20),
    "20 merged": lambda ledger: find(ledger, Selection(states=(State.MERGED,)), limit=20),
    "the best 20": lambda ledger: find(ledger, Selection(), Order.BPB, limit=20),
    "show one": lambda ledger: ledger.experiment(501),
    "spent": Ledger.spent,
    "counts": Ledger.counts,
}


def timed(look: Callable[[Ledger], object], ledger: Ledger) -> float:
    """Milliseconds, median of 25."""
    took = []
    for _ in range(25):
        start = time.perf_counter()
        look(ledger)
        took.append(time.perf_counter() - start)
    return statistics.median(took) * 1e3


def quantiles(latencies: list[float]) -> str:
    ordered = sorted(latencies)
    return f"p50 {ordered[len(ordered) // 2] * 1e3:.2f} p99 {ordered[len(ordered) * 99 // 100] * 1e3:.2f}"


def spread(rates: list[float]) -> str:
    return f"{min(rates):,.0f}–{max(rates):,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=("decisions", "lists", "memory"))
    parser.add_argument("--folder", type=Path, help="on the disk to measure; by default a temporary folder")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--calls", type=int, default=6400, help="decisions of a repeat at most; 400 for each client")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ar-", dir=options.folder) as name, open_redis(Path(name)) as server:
        path = str(Path(name) / "redis" / SOCKET)
        PASSWORDS[path] = Users.of(Path(name) / "redis").passwords["owner"]
        bench = Bench(server.client, path)
        print(f"Redis {server.version}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; a sync of 4 KiB takes {bench.fsync_ms(Path(name)):.2f} ms")  # fmt: skip
        if "decisions" in options.what:
            for clients in options.clients:
                bench.decisions(clients, min(400, options.calls // clients), options.repeats)
        if "lists" in options.what:
            bench.lists(options.sizes)
        if "memory" in options.what:
            bench.memory(10_000)
        print(f"\nload at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
