"""Programs without any effect: what makes them equal, shown by running them, and what makes them new to the ledger."""

import random
from itertools import islice
from typing import Any

import pytest

from agents.contract import contract_breach
from agents.syntax import meaning_sha256
from benchmarks.equivalents import (
    KINDS,
    ROOT,
    Trace,
    approved,
    equivalents,
    executed,
    remarked,
    rewrite,
    trace,
    variants,
)

TRAIN = (ROOT / "train.py").read_text()

TRAPS = """
import math

SCALE = 4  # of what follows
OFFSET = SCALE - 1
SPREAD = 2.5
name = "outer"
names = ["a", "b"]


def double(x: int) -> int:
    return 2 * x


def late(x: int, by: int = double(SCALE)) -> int:
    return x - by if x > by else by - x


def shadows(values: list[int]) -> list[str]:
    inner = [name for name in map(str, values)]
    return [*inner, name, f"{name} {len(inner)} {SPREAD - 1}"]


def in_place(values: list[int]) -> list[int]:
    other, count, factor = values, 0, 3
    other += [1]
    for value in values:
        count += 1
        factor += value
    return [count, factor, *values]


def nested(n: int) -> int:
    total = n

    def add(total: int) -> int:
        return total + n - 1

    return -(total + 1) * 2 ** add(total=total) % 7 if n else 0


def signs(x: float) -> tuple[bool, bool, float]:
    return x < SPREAD, SPREAD - x == x, 1 - -x * SPREAD


class Counter:
    step = 0

    def count(self) -> int:
        step = 5
        self.step += 1
        step += self.step
        return step * (SCALE + 1) - (SCALE - (2 - 1))


def main() -> list[object]:
    counter = Counter()
    found: list[object] = [SCALE, OFFSET, name, double(3), late(2), late(9), shadows([1, 2]), in_place([5, 6])]
    found += [nested(n) for n in range(5)]
    found += [signs(x) for x in (-1.0, 1.25, math.inf)]
    found += [counter.count(), counter.count(), "a" + "b" * 2, names * 2 + ["c"]]
    return found
"""


@pytest.fixture(scope="module")
def unchanged() -> Trace:
    return trace(TRAIN)


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_after_many_rewritings_of_a_kind_trains_to_the_same_bits_and_is_new_to_the_ledger(
    kind: str, unchanged: Trace
) -> None:
    source = rewrite(TRAIN, kind, random.Random(0), most=1000)
    assert source is not None
    assert trace(source) == unchanged
    assert meaning_sha256(source) != meaning_sha256(TRAIN)
    assert contract_breach(source) is None and approved(TRAIN, source)


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_shadow_and_values_that_are_shared_are_left_alone(kind: str) -> None:
    expected = outcome(TRAPS)
    found = {rewrite(TRAPS, kind, random.Random(seed), most=1 + seed) for seed in range(20)}
    for source in found - {None}:
        assert source is not None and source != TRAPS
        assert outcome(source) == expected, source


def outcome(source: str) -> Any:
    return executed(source)["main"]()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MATRIX_LR = 0.04 ", "MATRIX_LR = 0.040000001 "),
        ("SOFTCAP * torch.tanh(", "torch.tanh("),
        ("std=0.001", "std=0.0010001"),
        ("distance < window", "distance <= window"),
    ],
)
def test_a_program_that_does_something_else_leaves_another_trace(old: str, new: str, unchanged: Trace) -> None:
    assert TRAIN.count(old) == 1
    assert trace(TRAIN.replace(old, new)) != unchanged


def test_the_programs_of_a_campaign_are_all_different_for_the_ledger_and_the_same_for_the_same_seed() -> None:
    programs = list(islice(variants(TRAIN, seed=2), len(KINDS)))
    hashes = [meaning_sha256(program.source) for program in programs]
    assert len({*hashes, meaning_sha256(TRAIN)}) == len(KINDS) + 1
    assert [program.kinds[0] for program in programs] == list(KINDS)
    assert programs[:2] == list(islice(variants(TRAIN, seed=2), 2))
    assert programs[:2] != list(islice(variants(TRAIN, seed=3), 2))


def test_a_file_with_nothing_to_rewrite_ends_with_the_count_and_others_are_proved() -> None:
    assert list(variants("pass\n", seed=1)) == []
    proved = equivalents(TRAIN, 2, seed=5)
    assert proved == list(islice(variants(TRAIN, seed=5), 2))


def test_a_remark_changes_no_meaning() -> None:
    assert remarked(TRAIN, "nothing") != TRAIN
    assert meaning_sha256(remarked(TRAIN, "nothing")) == meaning_sha256(TRAIN)
