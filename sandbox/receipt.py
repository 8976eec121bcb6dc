"""Receipts: a measurement, signed by the host that made it.

The signature is HMAC-SHA256 over the canonical JSON (RFC 8785) of every other field. The key lies in the lab's state
directory, is readable by its owner alone, and is mounted into no container.
"""

import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

import rfc8785
from pydantic import ValidationError

from records import BadInput, Measurement, MissingComponent

KEY = "receipt.key"
KEY_BYTES = 32


class Key:
    """A lab's key. Other labs that are to verify its receipts are given a copy of the file."""

    def __init__(self, secret: bytes):
        self._secret = secret
        self.id = hashlib.sha256(b"key id " + secret).hexdigest()[:16]

    @classmethod
    def of(cls, state_dir: Path) -> "Key":
        """The lab's key; made at the first call.

        Raises:
            BadInput: the file is not a key, or others can read it.
        """
        path = state_dir / KEY
        with suppress(FileExistsError):
            _create(path)
        return cls._read(path)

    @classmethod
    def existing(cls, state_dir: Path) -> "Key":
        """Raises MissingComponent if the lab has none yet, and otherwise as `of`."""
        if not (state_dir / KEY).exists():
            raise MissingComponent(f"{state_dir / KEY}: no key here; copy that of the lab which made the receipt")
        return cls._read(state_dir / KEY)

    @classmethod
    def _read(cls, path: Path) -> "Key":
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise BadInput(f"{path}: others can read the key, so its receipts prove nothing: chmod 600, or delete it")
        secret = path.read_bytes()
        if len(secret) != KEY_BYTES:
            raise BadInput(f"{path}: is not a key of {KEY_BYTES} bytes; restore it, or delete it for a new one")
        return cls(secret)

    def sign(self, measurement: Measurement) -> Measurement:
        """The same measurement with the key's id and its signature."""
        named = measurement.model_copy(update={"key_id": self.id, "hmac": None})
        return named.model_copy(update={"hmac": self._hmac(named)})

    def complaint(self, measurement: Measurement) -> str | None:
        """Why this measurement is not what the key's owner signed; None when it is."""
        if measurement.hmac is None:
            return "it is not signed"
        if measurement.key_id != self.id:
            return f"it was signed with key {measurement.key_id}, not with this lab's {self.id}"
        if not hmac.compare_digest(measurement.hmac.encode(), self._hmac(measurement).encode()):
            return "its content is not what was signed"
        return None

    def seal(self, text: str) -> str:
        """What only this key can say of a text that is no measurement, such as an intent to merge."""
        # No measurement's canonical JSON begins like this.
        return hmac.new(self._secret, b"seal\0" + text.encode(), hashlib.sha256).hexdigest()

    def _hmac(self, measurement: Measurement) -> str:
        content = measurement.model_dump(mode="json", exclude={"hmac"})
        return hmac.new(self._secret, rfc8785.dumps(content), hashlib.sha256).hexdigest()


def _create(path: Path) -> None:
    """A new key file: there completely, or not at all. Raises FileExistsError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{KEY}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(part)
    finally:
        part.unlink()


def read_receipt(path: Path) -> Measurement:
    """A receipt as `run --json` or `receipt show` wrote it.

    Raises:
        BadInput: it is none.
    """
    try:
        return Measurement.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "syntax"
        raise BadInput(f"{path}: is not a receipt ({where}: {error.errors()[0]['msg'].lower()})") from None
