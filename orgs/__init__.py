"""The organisation: org files, the pipeline of actors, the command line, and what a person sees.

Reading order: `orgfile` (what a person wrote), `lab` (where things lie), `launch` (a campaign from start to end),
`seats` (the Ray actors), `runner` (one device, one lease), `preflight` (what a coder may try), `errands` (agents of yours), `view` and `report` (what is shown), `cli` (the commands, a package of its own).
"""

import os
from pathlib import Path


def set_ray_environment() -> None:
    """No usage statistics, and the token that `ray start` asks for by default (Ray 2.60) wherever one exists.

    What the user has set goes first. A cluster without tokens ignores ours.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token")).is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


# Here, because Ray reads its environment when it is imported, and this runs before any file that imports it.
set_ray_environment()
