"""Shows how far long work is, on stderr: a bar for people at a terminal, now and then a line for log files."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

LINE_S = 10.0
"""Between lines in a log file."""


@contextmanager
def bytes_done(what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Yields what is to be told how many more bytes are done, from any thread."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())  # fmt: skip
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total_bytes)
            yield lambda more: bar.advance(task, more)
        return
    done, said, lock = 0, time.monotonic(), threading.Lock()
    print(f"{what} ({total_bytes / 1e6:,.0f} MB) ...", file=sys.stderr)

    def advance(more: int) -> None:
        nonlocal done, said
        with lock:
            done += more
            if time.monotonic() - said >= LINE_S:
                said = time.monotonic()
                print(f"{what}: {done / 1e6:,.0f} of {total_bytes / 1e6:,.0f} MB ...", file=sys.stderr)

    yield advance
