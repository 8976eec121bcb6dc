"""From the layout that an older version wrote to this one's: a campaign at a time, each by one script.

Whoever dies in between leaves some campaigns in the new layout and the rest in the old one, and the next opener goes on. Every
text stays as it was, byte for byte, so histories and receipts verify as before.
"""

import json
from typing import Any

import redis

from ledger import scripts
from ledger.schema import KEY, SCHEMA, found_schema
from ledger.store import Ledger, device_seconds, result_key
from records import HostFault, Measurement

LEASES = "autoresearch:lease:*"


def migrate(client: redis.Redis) -> str | None:
    """Bring an older layout up to this one. Returns what was done, in words; None if there was nothing to do.

    Raises:
        HostFault: an older version is at work in it.
    """
    found = found_schema(client)
    if found is None or found >= SCHEMA:
        return None
    count = migrate_1_to_2(client)
    write_schema(client)
    return f"the ledger was in layout {found}: {count} campaign{'' if count == 1 else 's'} brought to layout {SCHEMA}"


def write_schema(client: redis.Redis) -> None:
    client.set(KEY, SCHEMA)


def migrate_1_to_2(client: redis.Redis) -> int:
    """Every campaign of layout 1. Returns how many there were.

    Raises:
        HostFault: an older version is at work in it, or died during a merge.
    """
    reader: Any = client
    if at_work := [lease.removeprefix(LEASES[:-1]) for lease in reader.keys(LEASES)]:
        raise HostFault(f"an older version is at work in this ledger ({', '.join(at_work)}): stop it, then try again")
    names = Ledger.campaigns(client)
    if merging := [name for name in names if reader.exists(f"autoresearch:campaign:{name}:intent")]:
        raise HostFault(
            f"campaign {merging[0]} has a merge under way: finish it with the version that began it (resume), then come back"
        )
    for name in names:
        while reader.type(f"autoresearch:campaign:{name}:events") == "stream":
            migrate_campaign(client, f"autoresearch:campaign:{name}:")
    return len(names)


def migrate_campaign(client: redis.Redis, prefix: str) -> None:
    """One campaign, unless somebody writes into it at this moment."""
    reader: Any = client
    head = reader.get(prefix + "head") or ""
    results: dict[str, int] = {}
    scores: dict[int, str] = {}
    seconds = 0.0
    for id in range(1, int(reader.get(prefix + "ids") or 0) + 1):
        for text in reader.lrange(f"{prefix}measurements:{id}", 0, -1):
            measurement = Measurement.model_validate_json(text)
            seconds += device_seconds(measurement)
            if measurement.val_bpb is not None:
                results[result_key(measurement)] = id
                scores[id] = repr(measurement.val_bpb)
    scripts.run(client, "migrate", prefix, head, round(seconds * 1000), json.dumps(results), json.dumps(scores))
