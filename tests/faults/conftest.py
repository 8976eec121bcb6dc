"""A lab to copy, and a campaign in a copy of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign, campaign_in, make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def campaign(template: Path) -> Iterator[Campaign]:
    with campaign_in(template) as campaign:
        yield campaign
