"""A lab with this repository's train.py, and an API on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.server import RedisServer, open_redis
from tests.agents.lab import Lab, make_lab
from tests.minds.office import ROOT, Office
from tests.minds.policy import competent
from tests.minds.server import MessagesServer


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with open_redis(tmp_path_factory.mktemp("r")) as server:
        yield server


@pytest.fixture
def lab(tmp_path: Path, opened: RedisServer) -> Lab:
    """As its owner sees it."""
    return make_lab(tmp_path, opened.client, (ROOT / "train.py").read_text())


@pytest.fixture
def api() -> Iterator[MessagesServer]:
    with MessagesServer(competent) as opened:
        yield opened
        assert opened.errors == []


@pytest.fixture
def office(lab: Lab, api: MessagesServer, opened: RedisServer) -> Office:
    """Its seats come to the ledger as agents do."""
    return Office(lab._replace(ledger=opened.ledger(lab.ledger.name, "agent")), api)
