"""The arithmetic of the audit against direct computations, and against liars."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from sandbox.audit import (
    FLOOR_NATS,
    REACH_NATS,
    Cuts,
    Nats,
    Text,
    blind,
    chance,
    draw,
    estimate,
    hardest_lie,
    least_mass,
    nats_of,
    needed,
    schedule,
    total,
    weigh,
)

VOCAB = 50
BOS = VOCAB - 1


def some_text(rows: int, length: int, seed: int = 0) -> Text:
    """Rows that begin with BOS, which stands for no bytes; frequent and rare tokens."""
    rng = np.random.default_rng(seed)
    odds = 1 / np.arange(1, VOCAB + 1) ** 1.5
    tokens = rng.choice(VOCAB, (rows, length + 1), p=odds / odds.sum()).astype(np.uint16)
    tokens[:, 0] = BOS
    table = np.append(rng.integers(1, 9, VOCAB - 1), 0).astype(np.int32)
    return Text(tokens, table)


def losses_of(text: Text, seed: int) -> Nats:
    """As uneven as those of a good model: most are small, a few are large."""
    rng = np.random.default_rng(seed)
    return rng.gamma(0.3, 6.0, (len(text.rows), text.rows.shape[1] - 1)).astype(np.float32)


# ---- the estimate ----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0, 100), offset=st.floats(-3, 20))
def test_the_estimate_is_unbiased_whatever_is_claimed(seed: int, scale: float, offset: float) -> None:
    text = some_text(4, 6, seed)
    honest = losses_of(text, seed).astype(np.float64)
    rng = np.random.default_rng(seed + 1)
    claims = np.maximum(offset + scale * rng.standard_normal(honest.shape), 0).astype(np.float32)
    counted = text.counted(slice(0, 4))
    weights = weigh(claims, text)
    everywhere = np.argwhere(weights > 0)
    assert len(everywhere) == counted.sum()
    expected = 0.0
    for row, position in everywhere:  # the expectation, term by term
        probability = float(weights[row, position]) / float(weights.sum(dtype=np.float64))
        cut = Cuts(np.array([row]), np.array([position]), np.array([probability]))
        expected += probability * estimate(claims, text, cut, honest[row, position : position + 1]).nats
    assert expected == pytest.approx(honest[counted].sum(), rel=1e-9, abs=1e-6)


def test_an_honest_claim_leaves_no_error_and_a_shaved_one_a_small_one() -> None:
    text = some_text(64, 32)
    claims = losses_of(text, 1)
    cuts = draw(weigh(claims, text), 500, np.random.default_rng(0))
    exact = estimate(claims, text, cuts, claims[cuts.rows, cuts.positions].astype(np.float64))
    assert (exact.nats, exact.std_error_nats) == (total(claims, text), 0.0)
    honest = (claims + np.float32(0.2)).astype(np.float64)  # all claims are 0.2 nats too low
    shaved = estimate(claims, text, cuts, honest[cuts.rows, cuts.positions])
    true = float(honest[text.counted(slice(0, 64))].sum())
    assert abs(shaved.nats - true) < 4 * shaved.std_error_nats
    assert shaved.std_error_nats < 0.05 * (true - total(claims, text))


def test_the_standard_error_is_the_spread_of_the_estimate() -> None:
    text = some_text(64, 32)
    claims, honest = losses_of(text, 1), losses_of(text, 2).astype(np.float64)
    found = []
    for seed in range(300):
        cuts = draw(weigh(claims, text), 200, np.random.default_rng(seed))
        found.append(estimate(claims, text, cuts, honest[cuts.rows, cuts.positions]))
    spread = float(np.std([one.nats for one in found]))
    assert spread == pytest.approx(float(np.mean([one.std_error_nats for one in found])), rel=0.15)


def test_bits_per_byte_are_those_of_a_direct_computation() -> None:
    text = some_text(8, 16)
    logits = torch.randn(8, 16, VOCAB, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.from_numpy(text.rows[:, 1:].astype(np.int64))
    log_probabilities = torch.log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    table = torch.from_numpy(text.token_bytes.astype(np.int64))[targets]
    direct = float(-log_probabilities[table > 0].sum() / (math.log(2) * table.sum()))
    flat = nats_of(logits.float().numpy().reshape(-1, VOCAB), text.rows[:, 1:].reshape(-1))
    claims = flat.reshape(8, 16).astype(np.float32)
    assert text.bits_per_byte(total(claims, text)) == pytest.approx(direct, abs=1e-6)
    assert text.tokens == int((table > 0).sum()) and text.bytes == int(table.sum())


def test_a_uniform_model_scores_the_entropy_of_its_vocabulary() -> None:
    text = Text(np.array([[9, 0, 1, 9, 2]], np.uint16), np.array([1, 2, 3, *[0] * 7], np.int32))  # 9 is BOS
    claims = np.full((1, 4), math.log(10), np.float32)
    assert (text.tokens, text.bytes) == (3, 1 + 2 + 3)
    assert text.bits_per_byte(total(claims, text)) == pytest.approx(3 * math.log2(10) / 6)


@pytest.mark.parametrize(
    ("logits", "loss"),
    [
        ([0.0, 0.0], math.log(2)),
        ([1e30, 0.0], 0.0),
        ([0.0, -math.inf], 0.0),
        ([-math.inf, 0.0], math.inf),
        ([math.nan, 0.0], math.nan),
        ([math.inf, 0.0], math.nan),
    ],
)
def test_the_loss_of_the_first_of_two_logits(logits: list[float], loss: float) -> None:
    found = nats_of(np.array([logits], np.float32), np.array([0]))
    assert found[0] == pytest.approx(loss, nan_ok=True)


# ---- cuts ------------------------------------------------------------------------------------------------------------


def test_positions_are_drawn_as_often_as_their_weight_says() -> None:
    text = some_text(6, 8)
    weights = weigh(losses_of(text, 3), text)
    cuts = draw(weights, 50_000, np.random.default_rng(0))
    seen = np.zeros(weights.shape)
    np.add.at(seen, (cuts.rows, cuts.positions), 1)
    expected = weights / weights.sum() * 50_000
    assert seen[expected == 0].sum() == 0
    assert chisquare(seen[expected > 0], expected[expected > 0], sum_check=False).pvalue > 1e-3
    assert cuts.probabilities == pytest.approx(expected[cuts.rows, cuts.positions] / 50_000, rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 300))
def test_nobody_is_shown_the_target_of_a_cut_before_it_has_answered(seed: int, count: int) -> None:
    text = some_text(5, 7, seed)
    cuts = draw(weigh(losses_of(text, seed), text), count, np.random.default_rng(seed))
    shown = dict.fromkeys(range(5), -1)
    asked = set()
    for indices in schedule(cuts):
        rows, positions = cuts.rows[indices].tolist(), cuts.positions[indices].tolist()
        assert len(set(rows)) == len(rows)
        for row, position in zip(rows, positions, strict=True):
            assert position > shown[row]  # what was shown before ends before this target
            shown[row] = position
            asked.add((row, position))
    assert asked == set(zip(cuts.rows.tolist(), cuts.positions.tolist(), strict=True))


def test_after_a_cut_there_is_nothing_of_the_row() -> None:
    rows = np.arange(3 * 9, dtype=np.uint16).reshape(3, 9)
    fillers = rows + 1000
    shown = blind(rows, np.array([0, 4, 7]), fillers)
    assert shown.shape == (3, 8)
    for row, cut in enumerate((0, 4, 7)):
        assert shown[row, : cut + 1].tolist() == rows[row, : cut + 1].tolist()
        assert shown[row, cut + 1 :].tolist() == fillers[row, cut + 1 : 8].tolist()


# ---- liars -----------------------------------------------------------------------------------------------------------


def hardest_liar(honest: Nats, text: Text, worth: float) -> Nats:
    """Claims of somebody who lies where that pays best for what it risks, until it is worth so much."""
    reach = text.surprisals[text.rows[:, 1:]] + REACH_NATS
    claim = np.where(honest > reach, reach - FLOOR_NATS, 0).astype(np.float32)
    ratio = np.where(honest > reach, (honest - claim) / FLOOR_NATS, honest / reach) * text.counted(
        slice(0, len(honest))
    )
    order = np.argsort(-ratio, axis=None)
    taken = order[: int(np.searchsorted(np.cumsum((honest - claim).flat[order]), worth)) + 1]
    claims = honest.copy()
    claims.flat[taken] = claim.flat[taken]
    return claims


def times_caught(honest: Nats, claims: Nats, text: Text, count: int, audits: int = 300) -> int:
    """Audits of so many cuts in which the lie is met."""
    weights, lies = weigh(claims, text), honest != claims
    drawn = (draw(weights, count, np.random.default_rng(seed)) for seed in range(audits))
    return sum(bool(lies[cuts.rows, cuts.positions].any()) for cuts in drawn)


def test_the_hardest_lie_is_met_as_often_as_stated() -> None:
    text = some_text(400, 64)
    honest = losses_of(text, 5)
    worth = 0.02 * float(total(honest, text))
    claims = hardest_liar(honest, text, worth)
    mass = least_mass(honest, text, worth)
    for power in (0.5, 0.9):
        count = needed(mass, power)
        assert chance(mass, count - 1) < power <= chance(mass, count)
        times = times_caught(honest, claims, text, count)
        assert binomtest(times, 300, power).pvalue > 1e-3, (times, power)


def test_the_cuts_of_a_merge_are_chosen_from_claims_that_lie_and_still_suffice() -> None:
    text = some_text(400, 64)
    honest = losses_of(text, 8)
    worth = 0.005 * float(total(honest, text))
    claims = hardest_liar(honest, text, worth)
    count = needed(hardest_lie(claims, text, worth), 0.99)  # the host has only these claims
    times = times_caught(honest, claims, text, count)
    assert times >= 292


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_lie_of_that_worth_is_harder_to_meet(seed: int) -> None:
    text = some_text(2, 4, seed)
    honest = losses_of(text, seed) * 3
    counted = np.argwhere(text.counted(slice(0, 2)))
    worth = 0.3 * float(honest[tuple(counted.T)].sum())
    bound = least_mass(honest, text, worth)
    for size in range(1, len(counted) + 1):
        for chosen in itertools.combinations(counted.tolist(), size):
            claims = honest.copy()
            for row, position in chosen:
                claims[row, position] = 0
            if float((honest - claims).sum()) >= worth:
                weights = weigh(claims, text)
                mass = sum(float(weights[row, position]) for row, position in chosen)
                assert mass / float(weigh(honest, text).sum()) >= bound * (1 - 1e-5)


def test_of_a_lie_worth_more_than_everything_any_is_meant() -> None:
    text = some_text(4, 8)
    honest = losses_of(text, 0)
    assert 0 < hardest_lie(honest, text, 1e9) == least_mass(honest, text, 1e9) <= 10
    nothing = np.zeros_like(honest)
    assert chance(hardest_lie(nothing, text, 1.0), 1) == 1.0 and needed(hardest_lie(nothing, text, 1.0), 0.99) == 1
    assert needed(0.5, 0.99) == 7 and chance(0.5, 7) == pytest.approx(1 - 0.5**7)
