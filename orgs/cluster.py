"""The Ray cluster that an org's actors live in: one that is running, or one of this launch's own."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from records import MissingComponent


def running_cluster() -> str | None:
    """Address of a Ray cluster that answers (RAY_ADDRESS, else the one `ray start` left word of), or None.

    Ray itself waits for minutes on the address of a cluster that has died, so the port is tried first.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        with suppress(OSError):
            address = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster").read_text().strip()
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.hostname is None or parts.port is None:
        return None
    with suppress(OSError), socket.create_connection((parts.hostname, parts.port), timeout=1):
        return address
    return None


@contextmanager
def ray_session() -> Iterator[str]:
    """Join the running Ray cluster, or start one inside this process for as long as the block runs.

    Raises:
        MissingComponent: RAY_ADDRESS names a cluster that does not answer, or refuses us.
    """
    import ray  # takes half a second to import, which every command would wait for

    address = running_cluster()
    if address is None and os.environ.get("RAY_ADDRESS"):
        raise MissingComponent(
            f"no Ray cluster answers at RAY_ADDRESS={os.environ['RAY_ADDRESS']}: start it, or unset RAY_ADDRESS"
        )
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        # Seats use milliseconds of CPU; what they run is bounded by the sandbox, not by Ray.
        options |= {"address": "local", "include_dashboard": False, "num_cpus": 1, "object_store_memory": 80_000_000}
    else:
        options |= {"address": address}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise MissingComponent(f"Ray did not start: {str(error).splitlines()[0]}") from None
    try:
        yield f"cluster at {address}" if address else "embedded"
    finally:
        ray.shutdown()
