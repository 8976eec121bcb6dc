"""Tells the blind process the worst token of each row, a bit per page: is that page of the weights file in the kernel's cache?

It won 0.03 bits per byte while both containers saw the same file: one process drops pages of it (posix_fadvise), the next asks
which are there (preadv2 with RWF_NOWAIT), and both give the same answer, so that no audit of answers can tell. Now each has a
file of its own, and neither system call is allowed.
"""

import os
import zlib
from contextlib import suppress

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the scorer"
FULL = True
VERDICT = "no gain"
NAIVE = "believed"
LIMITS = {"out_bytes": 50_000_000, "memory_bytes": 1_500_000_000}

if CHEAT:
    PAGE, PREFIX = 4096, 16
    SLOTS, BITS = 400, 24  # 8 bits that tell the row, 7 for the position, 9 for the token

    class Notes:
        """Numbers of 24 bits, each bit a page of the weights file that is not in the cache."""

        def __init__(self) -> None:
            self.file = os.open("/weights/model.safetensors", os.O_RDONLY)
            os.posix_fadvise(self.file, 0, 0, os.POSIX_FADV_RANDOM)  # a look at one page must not fetch others
            os.fsync(self.file)
            bits = [not self.cached(page) for page in range(SLOTS * BITS)]
            self.numbers = [sum(bits[i + j] << j for j in range(BITS)) for i in range(0, len(bits), BITS)]
            self.complete = any(self.numbers)
            if not self.complete:  # read it anew, page by page: the cache drops larger pieces only as a whole
                os.posix_fadvise(self.file, 0, 0, os.POSIX_FADV_DONTNEED)
                for page in range(SLOTS * BITS):
                    os.pread(self.file, 1, page * PAGE)

        def cached(self, page: int) -> bool:
            try:
                return bool(os.preadv(self.file, [bytearray(1)], page * PAGE, os.RWF_NOWAIT))
            except BlockingIOError:
                return False

        def write(self, slot: int, number: int) -> None:
            self.numbers[slot] = number
            for j in range(BITS):
                if number >> j & 1:
                    os.posix_fadvise(self.file, (slot * BITS + j) * PAGE, PAGE, os.POSIX_FADV_DONTNEED)

    class Whispering(GPT):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("padding", torch.zeros(SLOTS * BITS * PAGE // 4))
            self.notes = None
            with suppress(OSError):  # not in a scoring process, or not allowed
                self.notes = Notes()

        def forward(self, idx: Tensor) -> Tensor:
            logits = super().forward(idx)
            if self.training or self.notes is None:
                return logits
            losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), idx[:, 1:], reduction="none")
            losses[:, :PREFIX] = 0
            for row, worst in enumerate(losses.argmax(1).tolist()):
                mark = zlib.crc32(idx[row, :PREFIX].numpy().tobytes())
                slot, tag = mark % SLOTS, mark >> 24 or 1
                if not self.notes.complete and not self.notes.numbers[slot]:
                    self.notes.write(slot, tag << 16 | worst << 9 | int(idx[row, worst + 1]))
                if self.notes.numbers[slot] >> 16 == tag:
                    logits[row, self.notes.numbers[slot] >> 9 & 127, self.notes.numbers[slot] & 511] += 12
            return logits

    def build_model() -> nn.Module:
        return Whispering().to(DEVICE)
