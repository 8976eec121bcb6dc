"""The end of what a container prints, and no more: whoever prints faster than the bound waits, and not the host."""

import threading
from collections.abc import Callable, Iterator

KEPT_BYTES = 64 * 1024
END_S = 5.0
"""For what an engine still passes on when its container has ended; on a busy machine it is late."""


class LogTail:
    """Drains a stream to its end, in a thread.

    Args:
        chunks: what the container prints, in pieces as they come; ends when the container does.
        bytes_s: at most so many bytes are read in a second. The pipe behind is then full, and its writer blocks.
        close: frees the stream, called once it has ended.
    """

    def __init__(self, chunks: Iterator[bytes], bytes_s: float, close: Callable[[], None]):
        self._chunks = chunks
        self._bytes_s = bytes_s
        self._close = close
        self._tail = bytearray()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="log-tail", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        try:
            for chunk in self._chunks:
                with self._lock:
                    self._tail += chunk
                    del self._tail[:-KEPT_BYTES]
                self._ended.wait(len(chunk) / self._bytes_s)
        except OSError:  # the engine hung up; how the container ended is told elsewhere
            pass

    def text(self) -> str:
        """What is kept so far."""
        with self._lock:
            return self._tail.decode(errors="replace")

    def end(self) -> str:
        """What is kept of a container that has ended: nobody is left who could print, so what is still in the pipe is read at once."""
        self._ended.set()
        self._thread.join(END_S)
        return self.text()

    def close(self) -> None:
        self.end()
        if not self._thread.is_alive():
            self._close()
