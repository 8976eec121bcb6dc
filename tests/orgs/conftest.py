import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components import require
from tests.orgs.lab import make_lab
from tests.orgs.minds_lab import Played, played


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with played(tmp_path_factory.mktemp("n")) as found:
        yield found


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """In which campaigns run for real."""
    require(
        os.geteuid() == 0 and shutil.which("runc") is not None,
        "campaigns here run under runc as root: apt-get install runc",
    )
    return make_lab(tmp_path)
