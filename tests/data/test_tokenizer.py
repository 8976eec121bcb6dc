"""Laws of encoding: however documents are batched, each is encoded by itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import tokenizer as module
from data.tokenizer import BOS, Tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat and the bat sat on the hat\n" * 20], 300)


documents = st.lists(
    st.text() | st.sampled_from(["", "the cat", BOS, f"a{BOS}the", "<|bos", "|>", "\n", " "]), max_size=12
)


@settings(deadline=None)
@given(documents, st.integers(1, 30))
def test_batches_change_nothing(tokenizer: Tokenizer, documents: list[str], batch_bytes: int) -> None:
    alone = [tokenizer.encoding().encode_ordinary(text) for text in documents]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_BYTES", batch_bytes)
        assert [tokens.tolist() for tokens in tokenizer.encode(documents)] == alone
    assert all(tokenizer.bos_id not in tokens for tokens in alone)
