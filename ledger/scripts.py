"""Runs the Lua transitions and turns their refusals into exceptions."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import redis

from records import BadInput, HostFault, Refusal

FOLDER = Path(__file__).parent / "lua"


class WrongState(HostFault):
    """The experiment is not in a state that allows this step: somebody else was first."""


class AlreadyRecorded(WrongState):
    """The result is in the ledger already: whoever hands it in has nothing left to do."""


class StaleFence(HostFault):
    """The result comes from a lease that is no longer current; it changed nothing."""


class Quarantined(HostFault):
    """The device cannot be leased until somebody has looked at it, or it has recovered."""


class Broke(Refusal):
    """The call could cost more than is left of the campaign's or the experiment's money; it was not made."""

    @property
    def of(self) -> str:
        """Whose money it is: `campaign` or `experiment`."""
        return str(self)


# The first word of a script's error reply says which refusal it is.
REFUSALS: dict[str, type[Refusal]] = {
    "EXISTS": BadInput,
    "NOEXPERIMENT": BadInput,
    "WRONGSTATE": WrongState,
    "RECORDED": AlreadyRecorded,
    "STALEFENCE": StaleFence,
    "QUARANTINED": Quarantined,
    "BROKE": Broke,
    "MISCONF": HostFault,
    "OOM": HostFault,
}

FORBIDDEN = re.compile("The user executing the script can't|ACL failure in script")
"""What Redis says of a command in a script that its caller may not give: 6.2 and 7.0, then later ones."""


@cache
def source(name: str) -> str:
    """Text of `lua/<name>.lua`, after the words that all transitions share."""
    return "\n".join((FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in ("shared", name))


def run(client: redis.Redis, name: str, *args: str | int | float) -> Any:
    """Run one script with these ARGV.

    Raises:
        BadInput, WrongState, AlreadyRecorded, StaleFence, Quarantined: the script refused and wrote nothing.
        HostFault: Redis cannot write (disk or memory full).
        redis.exceptions.NoPermissionError: this connection's user may not do that step; nothing was written.
    """
    try:
        return client.register_script(source(name))(keys=[], args=args)
    except redis.ReadOnlyError as error:
        raise HostFault(str(error)) from None
    except redis.ResponseError as error:
        if FORBIDDEN.search(str(error)):
            raise redis.exceptions.NoPermissionError(f"this user may not {name}: {error}") from None
        code, _, message = str(error).partition(" ")
        if code not in REFUSALS:
            raise
        raise REFUSALS[code](message) from None
