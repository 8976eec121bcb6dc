"""Fixtures of the agents' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ledger.server import open_redis
from tests.agents.lab import Lab, make_lab


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with open_redis(tmp_path_factory.mktemp("r")) as opened:
        yield opened.client


@pytest.fixture
def lab(tmp_path: Path, server: redis.Redis) -> Lab:
    return make_lab(tmp_path, server)


@pytest.fixture
def another_lab(tmp_path_factory: pytest.TempPathFactory, server: redis.Redis) -> Lab:
    return make_lab(tmp_path_factory.mktemp("another"), server)
