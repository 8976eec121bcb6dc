"""A failpoint has its name in one registry, its place in the code and its line in the documentation; and it fires there."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import failpoint
from tests.faults.table import ROOT, reached_in_code, rows


def test_every_name_is_reached_by_one_line_of_code_and_told_in_the_documentation() -> None:
    assert Counter(reached_in_code()) == Counter(failpoint.NAMES)
    assert Counter(row.name for row in rows()) == Counter(failpoint.NAMES)
    assert len(failpoint.NAMES) >= 40


def reaching(text: str, times: int = 1) -> subprocess.CompletedProcess[str]:
    """A process that gets to a failpoint and then says so."""
    code = f"import failpoint\nfor _ in range({times}):\n    failpoint.reach('relay.landed')\nprint('passed')"
    environment = os.environ | {"PYTHONPATH": str(ROOT), failpoint.VARIABLE: text}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_a_process_dies_at_the_failpoint_that_it_was_told_and_at_no_other() -> None:
    assert reaching("relay.landed:kill").returncode == -signal.SIGKILL
    assert reaching("relay.merged:kill").stdout == "passed\n"
    assert reaching("").stdout == "passed\n"


def test_it_dies_the_nth_time_only() -> None:
    assert reaching("relay.landed:kill:at=3", times=3).returncode == -signal.SIGKILL
    assert reaching("relay.landed:kill:at=3", times=2).stdout == "passed\n"


def test_of_several_processes_one_dies_once(tmp_path: Path) -> None:
    text = f"relay.landed:kill:once={tmp_path / 'mark'}"
    ended = [reaching(text) for _ in range(3)]
    assert [process.returncode for process in ended] == [-signal.SIGKILL, 0, 0]
    assert (tmp_path / "mark").read_text().isdigit()


def test_it_waits_as_long_as_it_was_told() -> None:
    failpoint.arm("relay.landed:sleep=0.2,relay.merged:kill")
    try:
        started = time.monotonic()
        failpoint.reach("relay.landed")
        assert time.monotonic() - started >= 0.2
    finally:
        failpoint.arm("")
    assert failpoint.ARMED == {}


@pytest.mark.parametrize("text", ["relay.landd:kill", "relay.landed:kil", "relay.landed:kill:twice=1"])
def test_a_typing_mistake_is_not_taken_for_silence(text: str) -> None:
    ended = reaching(text)
    assert ended.returncode == 1 and "no such failpoint, action or option" in ended.stderr
