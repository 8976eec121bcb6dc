"""Byte-pair merges learned on the training split, and documents encoded with them on all cores."""

import base64
import json
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prepare import row_dtype

Tokens = NDArray[Any]
"""uint16 or uint32, [tokens]."""

BOS = "<|bos|>"
SAMPLE_BYTES = 64 * 2**20  # merges change little beyond; more only costs minutes
BATCH_BYTES = 2**20  # of text that a thread encodes at a time
# GPT-4's split pattern, but at most two digits in a token: small vocabularies have no room for numbers of three.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)


class Tokenizer(NamedTuple):
    tokens: list[bytes]
    """Bytes of every mergeable token, in the order of their merges."""
    pattern: str
    bos_id: int
    """The last id of the vocabulary; the ids between, if the text had too few merges, are never used."""

    def encoding(self) -> Any:
        """The `tiktoken.Encoding` of this vocabulary."""
        import tiktoken

        ranks = {token: rank for rank, token in enumerate(self.tokens)}
        return tiktoken.Encoding(
            "dataset", pat_str=self.pattern, mergeable_ranks=ranks, special_tokens={BOS: self.bos_id}
        )

    def encode(self, documents: Iterable[str]) -> Iterator[Tokens]:
        """Tokens of each document, in order; a few batches per core are in memory at a time."""
        dtype = row_dtype(self.bos_id + 1)
        own = threading.local()  # those who share an encoding wait for each other at its regular expression

        def encode(batch: Sequence[str]) -> list[Tokens]:
            if not hasattr(own, "encoding"):
                own.encoding = self.encoding()
            if any(BOS in text for text in batch):  # there it is text like any other
                return [own.encoding.encode_to_numpy(text, disallowed_special=()).astype(dtype) for text in batch]
            # In one call: tiktoken lets go of the interpreter while it works, and each time may wait to get it back.
            tokens = own.encoding.encode_to_numpy(BOS.join(batch), allowed_special={BOS}).astype(dtype)
            first, *others = np.split(tokens, np.flatnonzero(tokens == self.bos_id))
            return [first, *(tokens[1:] for tokens in others)]

        workers = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(workers) as pool:
            ahead: deque[Future[list[Tokens]]] = deque()
            for batch in _batches(documents):
                ahead.append(pool.submit(encode, batch))
                if len(ahead) > 2 * workers:
                    yield from ahead.popleft().result()
            for future in ahead:
                yield from future.result()

    def token_bytes(self) -> NDArray[np.int32]:
        """Bytes per token, int32 [vocab_size], 0 for BOS. Of the token itself: decoding a part of a character would
        give U+FFFD, three bytes long."""
        table = np.zeros(self.bos_id + 1, np.int32)
        table[: len(self.tokens)] = [len(token) for token in self.tokens]
        return table

    def to_json(self) -> str:
        tokens = [base64.b64encode(token).decode("ascii") for token in self.tokens]
        return json.dumps({"pattern": self.pattern, "special_tokens": {BOS: self.bos_id}, "mergeable_ranks": tokens})


def train_tokenizer(sample: Iterable[str], vocab_size: int) -> Tokenizer:
    import rustbpe

    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(sample), vocab_size - 1, pattern=SPLIT_PATTERN)
    ranks = sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1])
    return Tokenizer([bytes(token) for token, _ in ranks], SPLIT_PATTERN, vocab_size - 1)


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in documents:
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
