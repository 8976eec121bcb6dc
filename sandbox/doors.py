"""Doors: how an agent's container reaches the few hosts that its role file names, and nothing else.

Its network namespace is as empty as a candidate's. Each `name:port` has a Unix socket, mounted into the container; in there
inside/start.py listens at an address of 127/8 that /etc/hosts gives to the name, and passes on to the socket. So programs need to know
nothing of it: names resolve, certificates are those of the names, and no byte that the agent sends is interpreted on this side.
"""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sandbox.gate import listen

CONNECTIONS = 64
"""At a time, through all doors."""
CONNECT_S = 20.0
CHUNK_BYTES = 64 * 1024
LOCAL = ("localhost", "127.0.0.1")


class Door(NamedTuple):
    """A host that can be reached."""

    host: str
    port: int
    address: str
    """Where it is in the container."""

    @property
    def socket(self) -> str:
        return f"{self.address}-{self.port}.sock"


def doors_to(hosts: Sequence[str]) -> list[Door]:
    """A door for each `name:port`. This machine's own loopback keeps its address; every other name gets one of its own."""
    split = [host.rpartition(":") for host in dict.fromkeys(hosts)]
    names = list(dict.fromkeys(name for name, _, _ in split if name not in LOCAL))
    address = {name: f"127.0.1.{number}" for number, name in enumerate(names, 1)} | dict.fromkeys(LOCAL, "127.0.0.1")
    return [Door(name, int(port), address[name]) for name, _, port in split]


def hosts_file(doors: Sequence[Door]) -> str:
    """What is /etc/hosts in the container."""
    named = dict.fromkeys(f"{door.address} {door.host}\n" for door in doors if door.host not in LOCAL)
    return "".join(["127.0.0.1 localhost\n", *named])


@contextmanager
def open_doors(doors: Sequence[Door], folder: Path) -> Iterator[None]:
    """Serve the sockets in `folder` until the block ends; every connection ends with it."""
    listeners = [listen(folder, door.socket, CONNECTIONS) for door in doors]
    runner, stop = asyncio.Runner(loop_factory=asyncio.new_event_loop), asyncio.Event()
    loop = runner.get_loop()
    thread = threading.Thread(target=lambda: runner.run(serve(doors, listeners, stop)), name="doors", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        runner.close()


async def serve(doors: Sequence[Door], listeners: Sequence[socket.socket], stop: asyncio.Event) -> None:
    slots = asyncio.Semaphore(CONNECTIONS)
    servers = [
        await asyncio.start_unix_server(partial(forward, door, slots), sock=listener)
        for door, listener in zip(doors, listeners, strict=True)
    ]
    await stop.wait()
    for server in servers:
        server.close()


async def forward(
    door: Door, slots: asyncio.Semaphore, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One connection, from the container to the host behind a door. One too many is ended at once."""
    with closing(writer):
        if slots.locked():
            return
        async with slots:
            try:
                async with asyncio.timeout(CONNECT_S):
                    far_reader, far_writer = await connect(door)
            except (OSError, TimeoutError):
                return  # it sees a connection that ends at once
            # Only the end of the block cancels it, and to asyncio.streams (3.11) a cancelled handler is an error to report.
            with closing(far_writer), suppress(asyncio.CancelledError):
                await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


async def connect(door: Door) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises OSError."""
    looked_up = await asyncio.get_running_loop().getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM)
    for address in (str(found[4][0]) for found in looked_up):
        if is_behind(door.host, address):
            with suppress(OSError):
                return await asyncio.open_connection(address, door.port)
    raise OSError(f"{door.host} cannot be reached")


def is_behind(host: str, address: str) -> bool:
    """Whether a name may lead to an address: only that of this machine leads to its loopback, and none to a metadata service,
    whoever may answer for the name."""
    ip = ipaddress.ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if host in LOCAL:
        return ip.is_loopback
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
