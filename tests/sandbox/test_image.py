"""What an image is known by."""

import json
import subprocess
import sys

DESCRIBE = "import json; from sandbox.image import describe_host; print(json.dumps(describe_host(), sort_keys=True))"


def described(before: str) -> dict[str, object]:
    """`describe_host` in a process that has done something else first."""
    told = subprocess.run([sys.executable, "-c", f"{before}; {DESCRIBE}"], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(told.stdout.splitlines()[-1])
    return found


def test_the_hash_of_an_image_is_the_same_in_every_process() -> None:
    """Runners have imported Ray, which puts packages of its own on their path; a replay has not."""
    plain = described("import sys")
    assert {"torch", "numpy"} <= set(plain["distributions"])  # type: ignore[call-overload]
    assert described("import ray") == plain
