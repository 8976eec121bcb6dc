"""The rules that decide on a merge."""

import math

import pytest

from ledger.verdict import RULES, keep_if_lower, may_merge
from records import FailureKind
from tests.ledger.samples import failed, scored


@pytest.mark.parametrize(("bpb", "merge"), [(0.999999, True), (1.0, False), (1.000001, False), (math.nan, False)])
def test_only_a_lower_score_merges(bpb: float, merge: bool) -> None:
    verdict = keep_if_lower([scored("a", 1.0)], scored("b", bpb))
    assert verdict.merge is merge
    assert verdict.champion_bpb == 1.0


def test_the_mean_of_the_champion_is_to_beat() -> None:
    champion = [scored("a", 1.0), scored("a", 1.2)]
    assert keep_if_lower(champion, scored("b", 1.05)).merge
    assert not keep_if_lower(champion, scored("b", 1.11)).merge


def test_the_reason_names_both_scores() -> None:
    verdict = keep_if_lower([scored("a", 1.0)], scored("b", 0.9))
    assert verdict.reason == "0.900000 bpb is lower than the champion's 1.000000 (-0.100000)"


def test_without_a_score_nothing_merges() -> None:
    assert not keep_if_lower([scored("a", 1.0)], failed("b", FailureKind.CRASH)).merge
    assert not keep_if_lower([], scored("b", 0.1)).merge


def test_an_org_file_finds_the_rule_by_the_name_on_its_verdicts() -> None:
    for name, rule in RULES.items():
        assert rule([scored("a", 1.0)], scored("b", 0.9)).rule == name


def test_a_score_may_merge_if_a_run_with_it_would() -> None:
    champion = [scored("a", 1.0), scored("a", 1.2)]
    assert may_merge(keep_if_lower, champion, 1.05) and not may_merge(keep_if_lower, champion, 1.1)
    assert not may_merge(keep_if_lower, [], 0.1)
