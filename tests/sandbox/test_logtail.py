"""The end of what a container prints: held back while it runs, and whole once it has ended."""

import os
import subprocess
import sys
from functools import partial

from sandbox.engines.logtail import KEPT_BYTES, LogTail

PRINTS = "print('x' * 60_000); print('my last words')"


def test_the_last_words_of_whoever_printed_too_fast_are_not_lost() -> None:
    """All that it printed fits into the pipe, so that it has ended long before it is read at this rate."""
    with subprocess.Popen([sys.executable, "-c", PRINTS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        read = partial(os.read, process.stdout.fileno(), 4096)
        tail = LogTail(iter(read, b""), 4096.0, lambda: None)
        assert process.wait() == 0
        assert len(tail.text()) < 60_000, "it is held back"
        assert tail.end().endswith("x\nmy last words\n")
        tail.close()


def test_no_more_than_the_end_is_kept() -> None:
    tail = LogTail(iter([b"a" * KEPT_BYTES, b"b" * 10]), 1e9, lambda: None)
    assert tail.end() == "a" * (KEPT_BYTES - 10) + "b" * 10
    tail.close()
