"""A ledger of a newer layout is opened by nobody, and says so."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ledger import Ledger
from ledger.schema import KEY, SCHEMA, check_schema
from ledger.server import open_redis
from records import MissingComponent
from tests.ledger.samples import campaign


@pytest.fixture
def lab() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ar-") as folder:
        yield Path(folder)


def test_the_first_campaign_writes_the_version(client: redis.Redis) -> None:
    check_schema(client)
    assert client.get(KEY) is None
    Ledger(client, "night").create(campaign("night"))
    assert client.get(KEY) == str(SCHEMA)
    check_schema(client)


def test_a_ledger_of_a_newer_layout_is_refused_in_one_line(lab: Path) -> None:
    with open_redis(lab) as server:
        Ledger(server.client, "night").create(campaign("night"))
        server.client.set(KEY, SCHEMA + 1)
    told = f"has layout {SCHEMA + 1}, and this version of autoresearch-org knows {SCHEMA}: update it"
    with pytest.raises(MissingComponent, match=told), open_redis(lab):
        pytest.fail("opened")
