"""What to do when a test's real component is missing: skip with the reason, or fail where nothing may be missing."""

import os

import pytest


def require(present: bool, reason: str) -> None:
    """Go on if the component is present; otherwise skip, or fail under CI=true.

    Args:
        present: whether the component was found.
        reason: what is missing and how to get it.
    """
    if present:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing under CI: {reason}")
    pytest.skip(reason)
