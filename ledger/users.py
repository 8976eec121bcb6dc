"""Who may do what in the ledger, as users of Redis: a step that is not a role's own is refused by the server itself.

Redis 6.2 cannot tell keys that may be read from keys that may be written, so whoever does steps has a second connection, as
`reader`, for all that is only read. Scripts run with the rights of their caller; lua/shared.lua says which key is whose.
"""

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis

CAMPAIGN = "autoresearch:campaign:*:"
STEPS = "select evalsha script|load time hget hset hdel zadd zrem zscore rpush lindex"
"""Commands of every transition."""
SHARED = "experiment:* events updated"


class Rights(NamedTuple):
    """What a user may do: each of the commands with each of the keys."""

    commands: str
    of_campaigns: str
    """Keys of every campaign, without its prefix."""
    others: str = ""


def states(*names: str) -> str:
    return " ".join(f"state:{name}" for name in names)


RIGHTS = {
    "agent": Rights(
        f"{STEPS} exists zrange zcard incr hexists hincrby",
        f"{SHARED} ids programs money holds calls {states('proposed', 'claimed', 'coded', 'queued', 'refused', 'duplicate')}",
    ),
    "runner": Rights(
        f"{STEPS} get hmget hincrby zrange",
        f"{SHARED} run:* measurements:* results scores spent headline "
        + states("proposed", "queued", "confirming", "running", "scored", "crashed", "invalid"),
        "autoresearch:lease:*",
    ),
    "lease": Rights(
        "select evalsha script|load get set pexpire pttl incr hget hset hdel hgetall",
        "stop",
        "autoresearch:lease:* autoresearch:fence:* autoresearch:quarantine",
    ),
    "arbiter": Rights(
        f"{STEPS} get exists hmget hkeys hsetnx hexists hincrby incr zcount",
        f"{SHARED} ids programs verdict:* champion outbox baselines lane:baseline lane:repeat "
        + states(
            "proposed",
            "queued",
            "scored",
            "confirming",
            "merging",
            "merged",
            "discarded",
            "within_noise",
            "pooled",
            "stale",
        ),
        "autoresearch:lease:relay/*",
    ),
    "reader": Rights(
        "select get exists hget hgetall zrange zcard zscore zmscore lrange lindex llen multi exec discard info",
        "",
        "autoresearch:*",
    ),
}
"""Planner, coder, reviewer and upkeep are agents. A runner holds its device, the relay its outbox and the launcher its campaign, as
`lease`; the relay is an arbiter."""


def rules(user: str, password: str) -> list[str]:
    """Of ACL SETUSER, and of a line of an ACL file."""
    allowed = RIGHTS[user]
    keys = [*(CAMPAIGN + key for key in allowed.of_campaigns.split()), *allowed.others.split()]
    commands = [f"+{command}" for command in allowed.commands.split()]
    return ["reset", "on", f">{password}", *(f"~{key}" for key in keys), "-@all", *commands]


class Users(NamedTuple):
    """The users of one lab. All but the owner's password may be given to those who work under it."""

    prefix: str
    """Of their names on a server that several labs may share."""
    passwords: dict[str, str]
    """By name without prefix."""

    @classmethod
    def of(cls, folder: Path) -> "Users":
        """Those of the lab whose Redis folder this is; drawn at the first call."""
        path = folder / "users.json"
        if not path.exists():
            passwords = {user: secrets.token_urlsafe(24) for user in ("owner", *RIGHTS)}
            drawn = cls(f"autoresearch-{secrets.token_hex(4)}-", passwords)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = folder / f"users.{secrets.token_hex(4)}.part"
            write_private(part, json.dumps(drawn._asdict()))
            with suppress(FileExistsError):  # somebody else was first
                os.link(part, path)
            part.unlink()
        return cls(**json.loads(path.read_text()))

    def acl_file(self) -> str:
        """For a server of the lab's own: nobody gets in without a password, from its first moment on."""
        owner = f"user owner reset on >{self.passwords['owner']} ~* &* +@all"
        others = (" ".join(["user", user, *rules(user, self.passwords[user])]) for user in RIGHTS)
        return "\n".join(["user default reset off", owner, *others]) + "\n"

    def set(self, owner: redis.Redis, prefix: str) -> str | None:
        """Create them, or bring them up to date. Returns why this connection may not, if so."""
        manager: Any = owner
        try:
            for user in RIGHTS:
                manager.execute_command("ACL SETUSER", prefix + user, *rules(user, self.passwords[user]))
        except redis.ResponseError as error:
            return str(error)
        return None


def write_private(path: Path, text: str) -> None:
    """A file that nobody else may read, on disk when this returns."""
    path.unlink(missing_ok=True)
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def login(url: str, user: str, password: str) -> str:
    """The URL for another user; whatever it says of its own is left out."""
    parts = urlsplit(url)
    place = f"{user}:{password}@{parts.netloc.rpartition('@')[2]}"
    query = [(key, value) for key, value in parse_qsl(parts.query) if key not in ("username", "password")]
    # Not `geturl`, which leaves out the slashes of `unix://user@/path`.
    return f"{parts.scheme}://{place}{parts.path}" + (f"?{urlencode(query)}" if query else "")
