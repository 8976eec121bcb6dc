"""A simulated night, played once more through Redis, git, arbiter and relay, comes to the same."""

from pathlib import Path

import numpy as np
import pytest
import redis

from ledger.inspection import inspect
from ledger.lease import Lease
from ledger.rules import RULES
from orgs.simulate import VirtualCampaign, VirtualGpu
from records import Policy, State
from tests.ledger.night import Night
from tests.ledger.repository import Repository
from tests.ledger.samples import scored

IDEAS = 16
RUNS = 80
"""More than such a night can need."""


class Replay:
    """The real campaign: whoever is to be run gets its truth and the next noise, as on the virtual GPU."""

    def __init__(self, night: Night, noise: list[float]):
        self.night = night
        self.noise = noise
        self.truth = {night.champion.source(night.start): 1.0 - noise[0]}
        """Of each program: the start's first run is 1.0."""
        self.runs = 1

    def settle(self) -> None:
        """Run whatever waits for the device, until nothing does."""
        ledger, night = self.night.ledger, self.night
        night.settle()
        while (taken := ledger.take(night.org.lease, night.champion.head())) is not None:
            assert taken.candidate is not None
            source = taken.candidate.source
            ledger.record(taken.id, night.org.lease, scored(source, self.truth[source] + self.noise[self.runs]))
            self.runs += 1
            night.settle()

    def try_out(self, name: int, effect: float) -> bool:
        head = self.night.champion.head()
        source = f"LR = {name}\n"
        self.truth[source] = self.truth[self.night.champion.source(head)] - effect
        id = self.night.org.queued(source, head)
        self.settle()
        state = self.night.ledger.experiment(id).state
        assert state in (State.MERGED, State.DISCARDED, State.WITHIN_NOISE)
        return state == State.MERGED


@pytest.mark.parametrize("rule", RULES)
def test_a_simulated_night_and_a_real_one_come_to_the_same(
    client: redis.Redis, lease: Lease, tmp_path: Path, rule: str
) -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(0.0, 0.001, RUNS)
    effects = np.where(rng.random(IDEAS) < 0.4, 0.006, 0.0).tolist()
    # No canaries: whether one is run before or after an idle moment makes no difference but to the order of the noise.
    policy = Policy(rule=rule, judgements=IDEAS, noise_runs=8, canary_every=1000)

    virtual = VirtualCampaign(policy, RULES[rule], VirtualGpu(noise))
    virtual.begin()
    expected = [virtual.try_out(virtual.champion.true_bpb - effect) for effect in effects]

    night = Night(client, lease, Repository(tmp_path / "lab"), policy=policy)
    real = Replay(night, noise.tolist())
    real.settle()
    assert [real.try_out(name, effect) for name, effect in enumerate(effects)] == expected
    assert any(expected) and not all(expected)
    assert (night.ledger.spent().verdicts, real.runs) == (virtual.judged, virtual.gpu.runs)
    assert [check.complaints for check in inspect(night.ledger, night.champion, lambda _: None)] == [[]] * 6
