"""The version of the ledger's layout in Redis (lua/shared.lua)."""

from typing import Any

import redis

from records import MissingComponent

SCHEMA = 3
KEY = "autoresearch:schema"


def found_schema(client: redis.Redis) -> int | None:
    """The version of what is stored; None for a server without any campaign. Version 1 did not write its number."""
    reader: Any = client
    text = reader.get(KEY)
    if text is None:
        return 1 if reader.exists("autoresearch:campaigns") else None
    return int(text)


def check_schema(client: redis.Redis) -> None:
    """Raise MissingComponent if a newer program wrote what is stored. What an older one wrote, ledger/migrate.py brings up to date."""
    found = found_schema(client)
    if found is not None and found > SCHEMA:
        raise MissingComponent(
            f"this ledger has layout {found}, and this version of autoresearch-org knows {SCHEMA}: update it"
        )
