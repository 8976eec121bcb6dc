"""Downloads the files of published corpora. A file is there whole and verified, or it is not there.

What has arrived of a file is kept as NAME.part, and the next attempt, or the next run, goes on from there. What a file must be is
known from its pinned hash, or else from what the hub announces (X-Linked-ETag is the SHA-256 of a large file). Its hash stays
beside it as NAME.sha256, in the format of sha256sum.
"""

import errno
import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import requests
import tenacity

from data.files import hash_file, locked, no_space
from data.progress import bytes_done
from records import BadInput, HostFault, MissingComponent

ENDPOINT = "https://huggingface.co"
"""Unless the environment variable HF_ENDPOINT names a mirror."""
CHUNK = 2**16  # the last one is lost when a connection breaks
PROGRESS = 2**20  # that earns new patience
Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    attempts: int = 6
    """Without a mebibyte of progress, after which a file is given up; half of it where nobody answers at all."""
    pause_s: float = 1.0
    """After the first attempt; it doubles, up to `longest_pause_s`, and is never shorter than a server asks for."""
    longest_pause_s: float = 60.0
    stall_s: float = 30.0
    """Without a byte, after which a connection is given up."""
    connections: int = 8


class Published(NamedTuple):
    """A file of a data set on the hub."""

    repository: str
    name: str
    sha256: str | None = None
    """Pinned."""

    @property
    def url(self) -> str:
        endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")
        return f"{endpoint}/datasets/{self.repository}/resolve/main/{self.name}"


class Announced(NamedTuple):
    """What a server says of a file."""

    bytes: int | None
    sha256: str | None


class Hiccup(Exception):
    """Worth another attempt."""

    def __init__(self, reason: str, pause_s: float = 0.0, connected: bool = True):
        super().__init__(reason)
        self.pause_s = pause_s
        """As asked for by the server."""
        self.connected = connected


class Wrong(Hiccup):
    """All of it arrived, and it is not the file: worth one more attempt, since what is wrong may be the way."""


def fetch(files: Sequence[Published], folder: Path, patience: Patience | None = None) -> list[Path]:
    """Paths of the files in `folder`, each whole and verified; what is missing or damaged is downloaded.

    Raises:
        BadInput: there is no such file at the address, or it is not what is pinned.
        MissingComponent: the server cannot be reached.
        HostFault: no space, or the server did not deliver; what has arrived is kept.
    """
    patience = patience or Patience()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        missing = [file for file in files if not is_whole(folder / file.name, file.sha256)]
        if missing:
            Downloads(folder, patience).fetch(missing)
    return [folder / file.name for file in files]


def is_whole(path: Path, pinned: str | None) -> bool:
    """Whether the file is there, with the hash that it must have."""
    try:
        recorded = path.with_name(path.name + ".sha256").read_text().split()[0]
        return hash_file(path) == (pinned or recorded)
    except (OSError, IndexError):
        return False


class Downloads:
    """Several files at a time. The first that cannot be had ends the others."""

    def __init__(self, folder: Path, patience: Patience) -> None:
        self.folder, self.patience = folder, patience
        self.stop = threading.Event()

    def fetch(self, files: Sequence[Published]) -> None:
        announced = self.all(files, lambda file: self.persist(file, lambda: self.look_up(file)))
        sizes = [about.bytes or 0 for about in announced.values()]
        arrived = sum(self.arrived(file) for file in files)
        if shutil.disk_usage(self.folder).free < sum(sizes) - arrived:
            raise no_space(self.folder, sum(sizes) - arrived)
        with bytes_done(
            "downloading " + ", ".join(file.name for file in files[:3]) + " …" * (len(files) > 3), sum(sizes)
        ) as advance:
            advance(arrived)
            self.all(files, lambda file: self.persist(file, lambda: self.transfer(file, announced[file], advance)))

    def all(self, files: Sequence[Published], work: Callable[[Published], Result]) -> dict[Published, Result]:
        with ThreadPoolExecutor(self.patience.connections) as pool:
            futures = {pool.submit(work, file): file for file in files}
            try:
                return {futures[future]: future.result() for future in as_completed(futures)}
            finally:
                self.stop.set()  # nothing is left to stop when all went well
                pool.shutdown(cancel_futures=True)
                self.stop.clear()

    # ---- one file ----------------------------------------------------------------------------------------------------

    def part(self, file: Published) -> Path:
        return self.folder / f"{file.name}.part"

    def arrived(self, file: Published) -> int:
        part = self.part(file)
        return part.stat().st_size if part.exists() else 0

    def persist(self, file: Published, attempt: Callable[[], Result]) -> Result:
        """Try again after a hiccup, a little later each time."""
        fruitless, wrong, before = 0, 0, self.arrived(file)

        def hiccup_of(state: tenacity.RetryCallState) -> Hiccup:
            error = state.outcome.exception() if state.outcome else None
            assert isinstance(error, Hiccup), "nothing else is retried"
            return error

        def enough(state: tenacity.RetryCallState) -> bool:
            nonlocal fruitless, wrong, before
            now = self.arrived(file)
            wrong += isinstance(hiccup_of(state), Wrong)
            fruitless = 0 if now - before >= PROGRESS else fruitless + 1
            before = now
            limit = self.patience.attempts if hiccup_of(state).connected else -(-self.patience.attempts // 2)
            return fruitless >= limit or wrong >= 2 or self.stop.is_set()

        def pause_s(state: tenacity.RetryCallState) -> float:
            own_s = self.patience.pause_s * 2.0 ** max(0, fruitless - 1)
            return min(max(own_s, hiccup_of(state).pause_s), self.patience.longest_pause_s)

        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Hiccup),
            stop=enough,
            wait=pause_s,
            sleep=self.pause,
            reraise=True,
        )
        try:
            return again(attempt)
        except Wrong as wrong_file:
            raise BadInput(f"{file.url}: {wrong_file}; name another mirror in HF_ENDPOINT, or none") from None
        except Hiccup as hiccup:
            if hiccup.connected:
                raise HostFault(f"{file.url}: {hiccup}; what has arrived is kept: run it again") from None
            raise MissingComponent(
                f"{urlsplit(file.url).netloc} cannot be reached ({hiccup}): connect to the network, name a mirror in HF_ENDPOINT, or "
                "use --corpus python or local, which need no network"
            ) from None

    def pause(self, pause_s: float) -> None:
        self.stop.wait(pause_s)

    def look_up(self, file: Published) -> Announced:
        with self.ask("HEAD", file) as response:
            if response.status_code in (405, 501):  # a plain server may not know HEAD
                return Announced(None, file.sha256)
            require_success(response, file)
            # The hub answers with a redirection to a store, and only the hub's own answer knows the hash.
            headers = [answer.headers for answer in (*response.history, response)]
            sizes = [h["X-Linked-Size"] for h in headers if "X-Linked-Size" in h]
            tags = [h.get(name, "").strip('W/"') for h in headers for name in ("X-Linked-ETag", "ETag")]
            size = int(sizes[0]) if sizes else int(headers[-1].get("Content-Length", 0)) or None
            announced = next((tag for tag in tags if re.fullmatch("[0-9a-f]{64}", tag)), None)
            return Announced(size, file.sha256 or announced)

    def transfer(self, file: Published, announced: Announced, advance: Callable[[int], None]) -> None:
        part, path = self.part(file), self.folder / file.name
        try:
            if announced.bytes is None or self.arrived(file) != announced.bytes:
                self.receive(file, announced, advance)
            arrived = self.arrived(file)
            try:
                sha256 = check(part, file, announced)
            except Hiccup:
                advance(self.arrived(file) - arrived)
                raise
            path.with_name(path.name + ".sha256").write_text(f"{sha256}  {path.name}\n")
            part.rename(path)
        except requests.RequestException:  # is an OSError, and already told
            raise
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what_to_do = "; make room and run it again: what has arrived is kept" if full else ""
            raise HostFault(f"{part}: {error.strerror}{what_to_do}") from None

    def receive(self, file: Published, announced: Announced, advance: Callable[[int], None]) -> None:
        """Append to the part what is missing of it, or begin again where the server cannot resume."""
        part, have = self.part(file), self.arrived(file)
        with self.ask("GET", file, **({"Range": f"bytes={have}-"} if have else {})) as response:
            if response.status_code == 416:
                part.unlink()
                advance(-have)
                raise Hiccup("more had arrived than there is")
            require_success(response, file)
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if have and not (response.status_code == 206 and resumed):
                advance(-have)
                have = 0
            with part.open("ab" if have else "wb") as out:
                try:
                    for chunk in response.iter_content(CHUNK):
                        if self.stop.is_set():
                            raise Hiccup("stopped")
                        out.write(chunk)
                        advance(len(chunk))
                        if announced.bytes is not None and out.tell() > announced.bytes:
                            raise Hiccup("more arrives than was announced")
                except requests.RequestException as error:
                    raise Hiccup(reason(error)) from None
                finally:
                    out.flush()
                    os.fsync(out.fileno())

    def ask(self, method: str, file: Published, **headers: str) -> requests.Response:
        headers["Accept-Encoding"] = "identity"
        timeout = (self.patience.stall_s, self.patience.stall_s)
        try:
            return requests.request(
                method, file.url, headers=headers, stream=True, timeout=timeout, allow_redirects=True
            )
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema):
            raise BadInput(f"{file.url}: is no address; HF_ENDPOINT must be like {ENDPOINT}") from None
        except requests.RequestException as error:
            raise Hiccup(reason(error), connected=False) from None


def require_success(response: requests.Response, file: Published) -> None:
    """Raises Hiccup for what may pass, Refusal for what will not."""
    if response.status_code == 429 or response.status_code >= 500:
        asked = response.headers.get("Retry-After", "")
        raise Hiccup(f"status {response.status_code}", float(asked) if asked.isdigit() else 0.0)
    if response.status_code >= 400:
        raise BadInput(f"{file.url}: status {response.status_code}; is HF_ENDPOINT a mirror of {ENDPOINT}?")


def check(part: Path, file: Published, announced: Announced) -> str:
    """The hash of what arrived. Raises Hiccup if that is too short, and Wrong, after throwing it away, if it is not the file."""
    size = part.stat().st_size
    if announced.bytes is not None and size < announced.bytes:
        raise Hiccup(f"ended at {size:,} of {announced.bytes:,} bytes")
    sha256 = hash_file(part)
    wrong = None
    if announced.bytes is not None and size > announced.bytes:
        wrong = f"has {size:,} bytes instead of {announced.bytes:,}"
    elif announced.sha256 is not None and sha256 != announced.sha256:
        wrong = f"has the SHA-256 {sha256}, not {'the pinned' if file.sha256 else 'the announced'} {announced.sha256}"
    elif announced.sha256 is None and not ends_as_parquet(part):
        wrong = "is no whole .parquet file"
    if wrong:
        part.unlink()
        raise Wrong(wrong)
    return sha256


def ends_as_parquet(path: Path) -> bool:
    """The only thing that can be checked where no hash is known."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        return file.read() == b"PAR1"


def reason(error: requests.RequestException) -> str:
    text = str(error)
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return "no answer in time"
    if "NameResolution" in text or "Name or service" in text:
        return "its name is not known"
    if "IncompleteRead" in text:
        return "the connection ended early"
    return "connection refused" if "refused" in text else "no connection"
