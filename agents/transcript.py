"""Transcripts: what a language model or an agent was asked and what it answered, call by call, compressed, without anybody's key.

A file for each call, under `.autoresearch/transcripts/<campaign>/`. The ledger has the call itself, with the SHA-256 of this file.
"""

import gzip
import hashlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from records import BadInput

KEY = re.compile(r"\bsk-[A-Za-z0-9_-]{16,}")
"""What keys of language-model APIs look like, should one have got into a text."""
REDACTED = "[redacted]"


def write(folder: Path, call: str, exchange: dict[str, Any], secrets: Collection[str] = ()) -> str:
    """Keep what was said in a call.

    Args:
        folder: of the campaign.
        call: its id.
        exchange: as JSON: `request`, in the words of the Messages API, and `reply`, `error` or both; none if nobody knows.
        secrets: keys that must not be in it, whatever they look like.

    Returns:
        SHA-256 of the file; empty if the disk would not take it, which is no reason to stop a campaign.
    """
    as_json = [json.dumps(secret, ensure_ascii=False)[1:-1] for secret in secrets]
    text = redact(json.dumps(exchange, ensure_ascii=False, separators=(",", ":")), as_json)
    data = gzip.compress(text.encode(errors="replace"), mtime=0)
    path, part = place(folder, call), folder / f"{call}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        return ""
    return hashlib.sha256(data).hexdigest()


def read(folder: Path, call: str, sha256: str) -> dict[str, Any]:
    """What was said in a call. Raises BadInput if the file is gone, or not what the ledger says of it."""
    path = place(folder, call)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: no transcript of this call ({error.strerror})") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BadInput(f"{path}: is not the transcript that the ledger has recorded")
    exchange: dict[str, Any] = json.loads(gzip.decompress(data))
    return exchange


def place(folder: Path, call: str) -> Path:
    return folder / f"{call}.json.gz"


def redact(text: str, secrets: Collection[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, REDACTED)
    return KEY.sub(REDACTED, text)
