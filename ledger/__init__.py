"""The record of a campaign: experiments and their states, device leases, the champion on a git branch, the arbiter.

The champion is a git ref; Redis is queue, leases, intent log and index. Every change of state is one Lua script, so that
a process may die between any two lines: a transition has happened or it has not.
"""

from ledger.intent import Intent
from ledger.scripts import AlreadyRecorded, Quarantined, StaleFence, WrongState
from ledger.store import Ledger, Running, Spent

__all__ = ["AlreadyRecorded", "Intent", "Ledger", "Quarantined", "Running", "Spent", "StaleFence", "WrongState"]
