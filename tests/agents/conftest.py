"""Fixtures of the agents' tests."""

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from agents.contract import make_candidate
from ledger import Ledger
from ledger.champion import Champion
from ledger.lease import acquire
from ledger.server import open_redis
from records import Campaign
from tests.agents.lab import Lab
from tests.agents.sources import CAMPAIGN, TRAIN, measurement
from tests.components import require

ROOT = Path(__file__).parents[2]


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


def make_lab(root: Path, server: redis.Redis) -> Lab:
    """A lab whose baseline is measured at 2.0 bpb."""
    require(shutil.which("git") is not None, "git is missing: apt-get install git")
    shutil.copytree(ROOT / "roles", root / "roles")
    shutil.copy(ROOT / "program.md", root / "program.md")
    (root / "train.py").write_text(TRAIN)
    who = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    for command in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", "start")):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)
    champion = Champion(root, root.name)
    ledger = Ledger(server, root.name)
    base = champion.start(TRAIN)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    ledger.create(Campaign.model_validate({**dict(CAMPAIGN), "name": root.name, "base": base, "created_at": now}))
    baseline = make_candidate(base, TRAIN, TRAIN)
    number = ledger.propose_baseline(baseline)
    lease = acquire(ledger.client, f"cpu/{root.name}", "test", 60.0)
    assert ledger.take(lease, base) is not None
    ledger.record(number, lease, measurement(baseline.source_sha256))
    ledger.crown(number, base)
    return Lab(root, ledger, champion)
