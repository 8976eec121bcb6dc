"""What is held out, in each of the ways a corpus is split, and that nothing like it is trained on."""

import json
import random
from collections import Counter
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.splits import Likeness, Splits, by_hash, first_documents, group_documents, last_files, size_of, take
from records import BadInput
from tests.ground import story

law = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_jsonl(path: Path, documents: list[str]) -> Path:
    path.write_text("\n".join(json.dumps({"text": text}) for text in documents))
    return path


def trained_on(splits: Splits) -> list[str]:
    return list(splits.train(Counter()))


# ---- by hash ---------------------------------------------------------------------------------------------------------


@law
@given(st.dictionaries(st.integers(0, 10**6), st.integers(0, 5), min_size=16, max_size=40), st.integers(1, 4))
def test_every_document_has_one_place_or_is_like_one_that_is_held_out(
    tmp_path: Path, changed: dict[int, int], files: int
) -> None:
    originals = {number: story(str(number)) for number in changed}
    variants = {number: story(str(number), changed=line) for number, line in changed.items()}
    documents = [*originals.values(), *variants.values()]
    paths = [write_jsonl(tmp_path / f"{i}.jsonl", documents[i::files]) for i in range(files)]
    splits = by_hash(paths, reserve_bytes=4000)
    skipped: Counter[str] = Counter()
    train = list(splits.train(skipped))
    assert train and splits.val and splits.test and splits.undecodable == 0
    placed = [*train, *splits.val, *splits.test]
    assert len(set(placed)) == len(placed) == len(documents) - skipped["near_duplicate"]
    for number in changed:
        family = {originals[number], variants[number]}
        places = [split for split in (train, splits.val, splits.test) if family & set(split)]
        assert len(places) == 1
        assert places[0] is not train or family <= set(train), "left out is only what is like the held out"


def test_where_documents_lie_does_not_change_what_is_held_out(tmp_path: Path) -> None:
    documents = [story(str(number)) for number in range(100)]
    one = by_hash([write_jsonl(tmp_path / "one.jsonl", documents)], 8000)
    random.Random(1).shuffle(documents)
    halves = [write_jsonl(tmp_path / f"{i}.jsonl", documents[i::2]) for i in range(2)]
    other = by_hash(halves, 8000)
    assert (one.val, one.test) == (other.val, other.test)
    assert sorted(trained_on(one)) == sorted(trained_on(other))


def test_what_is_held_out_is_as_much_as_was_asked_for(tmp_path: Path) -> None:
    documents = [story(str(number)) for number in range(400)]
    splits = by_hash([write_jsonl(tmp_path / "all.jsonl", documents)], 20_000)
    for held_out in (splits.val, splits.test):
        assert 20_000 <= sum(map(size_of, held_out)) <= 25_000


def test_a_document_that_would_be_most_of_an_evaluation_goes_to_train(tmp_path: Path) -> None:
    documents = [story(str(number)) for number in range(40)] + [story("long", lines=60)]
    splits = by_hash([write_jsonl(tmp_path / "all.jsonl", documents)], 6000)
    assert size_of(documents[-1]) > 1500 and documents[-1] in trained_on(splits)


def test_a_file_that_breaks_off_is_left_out_whole(tmp_path: Path) -> None:
    documents = [story(str(number)) for number in range(40)]
    broken = write_jsonl(tmp_path / "broken.jsonl", [story(f"broken {number}") for number in range(40)])
    broken.write_text(broken.read_text() + "\n{")
    splits = by_hash([write_jsonl(tmp_path / "all.jsonl", documents), broken], 3000)
    assert splits.undecodable == 1
    assert not any("broken" in text for text in [*splits.val, *splits.test, *trained_on(splits)])


def test_a_shared_licence_does_not_join_documents() -> None:
    licence = "\n".join(f"condition {number} of the licence" for number in range(5))
    documents = [f"{licence}\n{story(str(number))}" for number in range(50)]
    assert group_documents(documents) == [[number] for number in range(50)]
    likeness = Likeness(documents[:25])
    assert not any(likeness.resembles(text) for text in documents[25:])
    assert all(likeness.resembles(text) for text in documents[:25])


@law
@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_likeness_is_what_most_of_the_shorter_one_says(one: list[int], other: list[int]) -> None:
    first, second = ("\n".join(f"line {number:02}" for number in numbers) for numbers in (one, other))
    shared = len(set(one) & set(other)) / min(len(set(one)), len(set(other)))
    assert Likeness([first]).resembles(second) == (shared > 0.5)


# ---- corpora that come shuffled --------------------------------------------------------------------------------------


def write_parquet(path: Path, documents: list[str]) -> Path:
    parquet.write_table(arrow.table({"text": documents}), path, row_group_size=7)
    return path


@pytest.mark.parametrize("reserve_bytes", [1, 3000, 10**9])
def test_the_last_two_shards_are_held_out_as_far_as_they_are_needed(tmp_path: Path, reserve_bytes: int) -> None:
    shards = [[story(f"{shard} {number}") for number in range(20)] for shard in range(5)]
    paths = [write_parquet(tmp_path / f"{i}.parquet", shard) for i, shard in enumerate(shards)]
    splits = last_files(paths, reserve_bytes)
    assert trained_on(splits) == [text for shard in shards[:3] for text in shard] == trained_on(splits)
    assert splits.test == list(take(shards[3], reserve_bytes)) and splits.val == list(take(shards[4], reserve_bytes))
    assert (1 < len(splits.val) < 20) == (reserve_bytes == 3000)


def test_the_first_documents_are_for_test_the_next_ones_for_validation(tmp_path: Path) -> None:
    stories = [story(str(number)) for number in range(60)]
    splits = first_documents([write_parquet(tmp_path / "stories.parquet", stories)], 3000)
    front, back = len(splits.test), len(splits.test) + len(splits.val)
    assert splits.test == stories[:front] and splits.val == stories[front:back] and 1 < front < back < 60
    assert trained_on(splits) == stories[back:] == trained_on(splits)


def test_a_shard_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    paths = [write_parquet(tmp_path / f"{i}.parquet", [story(str(i))]) for i in range(3)]
    paths[0].write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(BadInput, match=r"0\.parquet: cannot be decoded; delete it"):
        trained_on(last_files(paths, 100))
