"""A data hub on loopback that behaves as badly as a test asks for."""

import hashlib
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Trouble = str
"""What one GET comes to: see Hub.answer."""


class Hub(ThreadingHTTPServer):
    """Serves files by name; what happens to the next requests for one is in its queue of troubles."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.troubles: dict[str, deque[Trouble]] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        """Method, name and range of each request, in order."""
        self.announces_hash = True
        self.knows_head = True
        self.resumes = True
        self.at_once = 0
        self.most_at_once = 0
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, name: str, content: bytes, *troubles: Trouble) -> None:
        self.files[name] = content
        self.troubles[name] = deque(troubles)

    def gets(self, name: str) -> list[str | None]:
        return [wanted for method, asked, wanted in self.asked if (method, asked) == ("GET", name)]


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        hub, name = self.server, self.path.rpartition("/")[2]
        hub.asked.append(("HEAD", name, None))
        if not hub.knows_head:
            self.send_error(501)
        elif not self.path.startswith("/store/") and name in hub.files and hub.announces_hash:
            # As the hub does it: its own answer has the hash, and sends on to where the bytes are.
            self.send_response(302)
            self.send_header("X-Linked-ETag", f'"{hashlib.sha256(hub.files[name]).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(hub.files[name])))
            self.send_header("Location", f"/store/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif name in hub.files:
            self.send_response(200)
            self.send_header("Content-Length", str(len(hub.files[name])))
            self.end_headers()
        else:
            self.send_error(404)

    def do_GET(self) -> None:
        hub, name = self.server, self.path.rpartition("/")[2]
        hub.asked.append(("GET", name, self.headers.get("Range")))
        if name not in hub.files:
            self.send_error(404)
            return
        hub.at_once += 1
        hub.most_at_once = max(hub.most_at_once, hub.at_once)
        try:
            self.answer(hub, name, hub.troubles[name].popleft() if hub.troubles[name] else "")
        finally:
            hub.at_once -= 1

    def answer(self, hub: Hub, name: str, trouble: Trouble) -> None:
        content = hub.files[name]
        first = int(self.headers["Range"][6:-1]) if hub.resumes and "Range" in self.headers else 0
        if trouble.isdigit():
            self.send_response(int(trouble))
            self.send_header("Retry-After", "1")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if first >= len(content):
            self.send_error(416)
            return
        body = content[first:]
        announced = len(body)
        match trouble:
            case "truncates":
                body = body[: len(body) // 2]
            case "announces less":
                announced = len(body) // 2
            case "announces more":
                announced = len(body) + 100
            case "sends other bytes":
                body = bytes(byte ^ 1 for byte in body)
            case "sends more":
                body, announced = body + b"more", announced + 4
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        if trouble == "stalls":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            hub.released.wait(30)
            self.close_connection = True
            return
        if trouble == "is slow":
            time.sleep(0.5)
        self.wfile.write(body)
        self.close_connection = bool(trouble)


@contextmanager
def running_hub() -> Iterator[Hub]:
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            hub.shutdown()


def requests_by_method(hub: Hub) -> Counter[str]:
    return Counter(method for method, _, _ in hub.asked)
