"""Where commands print, and what they end with where no refusal says it (see records.py)."""

from rich.console import Console

out = Console()
err = Console(stderr=True)

EXIT_CODES = """
Exit codes: 0 done · 1 a bug · 2 bad input (a flag, a file) · 3 something is missing (engine, dataset, git, Redis) ·
4 the host failed (disk, lease, engine); nothing is lost · 5 the candidate failed · 6 a receipt or the ledger does
not verify, or a replay does not reproduce · 130 interrupted
"""
DISPROVED = 6
