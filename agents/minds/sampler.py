"""The sampler: a mind that needs no language. It searches the numeric constants of train.py with Optuna.

It keeps nothing between calls: the study is rebuilt from the ledger each time, and its random numbers follow from the
campaign's seed and the number of proposals so far, so the same ledger gives the same proposal. It is the baseline that
every language model has to beat.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

import optuna

from agents.contract import review
from agents.knobs import find, resolve, set_knobs, written
from agents.minds.space import Axis, axes
from agents.minds.task import CodeTask, LessonTask, PlanTask, ReviewTask
from agents.settings import PlannerSettings, Profile, Settings
from records import BadInput, Experiment, Hypothesis, Number, Review, State

DRAWS = 24
"""Tries to find values that are new, for each choice of knobs."""
STARTUP_TRIALS = 4
"""Scores of a knob before its values are drawn by the estimator instead of blindly: a night has few runs per knob."""

Values = dict[str, Number]


class Sampler:
    """Proposes new values, writes them into the file, and reviews by the contract."""

    def ready(self, settings: Settings) -> None:
        """Always."""

    def check(self, source: str, settings: PlannerSettings, profile: Profile) -> list[Axis]:
        """The axes to search. Raises BadInput when there are none, or a setting is about a constant that is not there."""
        present = resolve(source, profile)
        if strangers := sorted((settings.space.keys() | set(settings.frozen)) - present.keys()):
            raise BadInput(
                f"the planner's role file names {', '.join(strangers)}, no numeric constant of train.py; "
                f"there are: {', '.join(present) or 'none'}"
            )
        tunable = axes(find(source, profile), settings)
        if not tunable:
            raise BadInput(
                "train.py has no numeric constant to tune; add one on top, or unfreeze one in the planner's role file"
            )
        return tunable

    def propose(self, task: PlanTask) -> list[Hypothesis]:
        """Values for the least explored knobs, never seen before in this campaign; none when every value was tried.

        Raises:
            BadInput: train.py has nothing to tune under this role file.
        """
        tunable = self.check(task.digest.champion.source, task.settings, task.profile)
        ideas = [experiment for experiment in task.experiments if experiment.is_idea]
        tried = {frozenset(idea.hypothesis.knobs.items()) for idea in ideas}
        rng = random.Random(f"{task.seed}/{len(ideas)}")
        for chosen in choices(tunable, ideas, task.settings.knobs_per_proposal, rng):
            study = study_of(task, chosen, rng.getrandbits(32))
            for values in draws(study, chosen):
                if frozenset(values.items()) not in tried:
                    return [hypothesis(chosen, values, ideas, task.settings.algorithm)]
        return []

    def implement(self, task: CodeTask) -> str:
        """The source with the hypothesis' values. Raises BadCandidate."""
        return set_knobs(task.source, task.hypothesis.knobs, task.profile)

    def judge(self, task: ReviewTask) -> Review:
        """Static review: contract, no-op, seed-only, not as promised."""
        return review(task.candidate, task.parent_source, task.hypothesis, task.profile)

    def learn(self, task: LessonTask) -> None:
        """It learns from the scores, without words."""


def choices(
    tunable: Sequence[Axis], ideas: Sequence[Experiment], size: int, rng: random.Random
) -> Iterator[Sequence[Axis]]:
    """Groups of knobs to change together, least explored first; ties in random order."""
    explored = Counter(name for idea in ideas for name in idea.hypothesis.knobs)
    order = sorted(tunable, key=lambda axis: (explored[axis.name], rng.random()))
    size = min(size, len(order))
    for start in range(len(order) - size + 1):
        yield order[start : start + size]


def draws(study: optuna.Study, chosen: Sequence[Axis]) -> Iterator[Values]:
    """Values to consider: each a step away from the champion's."""
    for _ in range(DRAWS):
        trial = study.ask({axis.name: axis.distribution for axis in chosen})
        values = {axis.name: axis.decode(trial.params[axis.name]) for axis in chosen}
        if all(axis.is_step(values[axis.name]) for axis in chosen):
            yield values


# ---- what the ledger teaches -----------------------------------------------------------------------------------------


def study_of(task: PlanTask, chosen: Sequence[Axis], seed: int) -> optuna.Study:
    """An Optuna study of some knobs, with one trial for each experiment that says something about them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it logs every study and trial to the terminal
    study = optuna.create_study(direction="minimize", sampler=optuna_sampler(task.settings.algorithm, seed))
    for values, outcome in observations(task):
        params = {axis.name: axis.encode(values[axis.name]) for axis in chosen if axis.name in values}
        inside = {name: at for name, at in params.items() if at is not None}
        if inside:
            distributions = {axis.name: axis.distribution for axis in chosen if axis.name in inside}
            study.add_trial(optuna.create_trial(params=inside, distributions=distributions, value=outcome))
    return study


def optuna_sampler(algorithm: str, seed: int) -> optuna.samplers.BaseSampler:
    if algorithm == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


def observations(task: PlanTask) -> Iterator[tuple[Values, float]]:
    """Values and what they came to: val_bpb, or infinity where the candidate crashed or was invalid.

    The start and the champion say something about every knob, another experiment about those that it changed.
    """
    champion = task.digest.champion
    if champion.val_bpb is not None:
        yield resolve(champion.source, task.profile), champion.val_bpb
    for experiment in task.experiments:
        score = experiment.score
        if experiment.candidate and experiment.candidate.source == champion.source:
            continue
        if experiment.lane == "baseline" and experiment.candidate and score and score.val_bpb is not None:
            yield resolve(experiment.candidate.source, task.profile), score.val_bpb
        elif experiment.state in (State.CRASHED, State.INVALID):
            yield experiment.hypothesis.knobs, math.inf
        elif score and score.val_bpb is not None:
            yield experiment.hypothesis.knobs, score.val_bpb


# ---- what it says ----------------------------------------------------------------------------------------------------


def hypothesis(chosen: Sequence[Axis], values: Values, ideas: Sequence[Experiment], algorithm: str) -> Hypothesis:
    """The proposal in words. Its forecast is the campaign's base rate: the sampler knows nothing better."""
    names = ", ".join(axis.name for axis in chosen)
    changes = ", ".join(f"{axis.name} {written(axis.current)} → {written(values[axis.name])}" for axis in chosen)
    verdicts = [idea.verdict for idea in ideas if idea.verdict is not None]
    deltas = [
        v.candidate_bpb - v.champion_bpb for v in verdicts if v.candidate_bpb is not None and v.champion_bpb is not None
    ]
    seen = sum(any(axis.name in idea.hypothesis.knobs for axis in chosen) for idea in ideas)
    return Hypothesis(
        title=changes if len(changes) <= 120 else f"{changes[:119]}…",
        change="; ".join(
            f"set {axis.name} to {written(values[axis.name])} (it is {written(axis.current)})" for axis in chosen
        ),
        rationale=f"Drawn by {algorithm} search; {names} changed in {seen} of {len(ideas)} proposals so far.",
        expected_delta_bpb=median(deltas) if deltas else 0.0,
        probability=(sum(v.merge for v in verdicts) + 1) / (len(verdicts) + 2),
        if_success=f"{names}: the better value is on this side of the champion's.",
        if_failure=f"{names}: this value is no better; the next draw moves away from it.",
        not_duplicate="No earlier proposal of this campaign has these values.",
        knobs=values,
    )
