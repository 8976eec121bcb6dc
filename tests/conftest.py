import os
from collections.abc import Iterator

import pytest

from tests.components import require
from tests.daemon import can_start_daemon, running_daemon

pytest_plugins = ["tests.sandbox.fixtures"]


@pytest.fixture(scope="session")
def docker_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Docker daemon for this test run; DOCKER_HOST names it meanwhile."""
    require(can_start_daemon(), "no Docker daemon can be started (apt-get install docker.io, and run as root)")
    before = os.environ.get("DOCKER_HOST")
    with running_daemon(tmp_path_factory.mktemp("d")) as address:
        os.environ["DOCKER_HOST"] = address
        yield address
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before
