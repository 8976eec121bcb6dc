"""The headline of a campaign: champion against start under fresh seeds, on text that no decision has seen.

Every run of it is kept in the ledger, signed, whoever asked for it and whatever came of it, and all of them count: looking again
adds runs and takes none away.
"""

import math
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, variance
from typing import Literal, NamedTuple

from redis import Redis

from ledger import Ledger, Quarantined
from ledger.champion import Champion
from ledger.lease import Keeper, hold, quarantine
from ledger.noise import Noise
from ledger.quantiles import student_t
from ledger.verdict import comparable, scores_of
from orgs.again import CandidateFailed, Conditions
from records import Campaign, FailureKind, HeadlineRun, HostFault, Measurement

Program = Literal["start", "champion"]
PROGRAMS: tuple[Program, Program] = ("start", "champion")
MAX_ATTEMPTS = 3
"""Of one run, when the host fails."""


class Headline(NamedTuple):
    """What champion and start score on the test split, in bits per byte."""

    base: str
    """Commit of the start."""
    commit: str
    """Of the champion."""
    start_bpb: list[float]
    """Of each run."""
    champion_bpb: list[float]
    difference_bpb: float
    """Mean of the champion less mean of the start: negative is better."""
    low_bpb: float | None
    """Of the difference's 95 % confidence interval; None where nothing says how far runs differ."""
    high_bpb: float | None
    interval_by: str
    """What says that: `Welch`, or `noise` where one of the two was run once: that of validation runs."""


def why_none(campaign: Campaign, commit: str | None) -> str | None:
    """Why there is nothing to compare, in words.

    Args:
        campaign: the campaign.
        commit: its champion; None while nothing is.
    """
    if commit is None:
        return "no champion is measured: nothing to compare with the start"
    return "nothing merged: the champion is the start" if commit == campaign.base else None


def summarise_headline(
    runs: Sequence[HeadlineRun], base: str, commit: str, *, noise: Noise | None = None
) -> Headline | None:
    """What the runs of these two commits say; None unless there is one of each that compares with the other.

    Args:
        runs: those whose receipts are good.
        base: the start.
        commit: the champion.
        noise: of single runs on the validation split.
    """
    found = by_program(runs, base, commit)
    start, champion = (scores_of(found[program]) for program in PROGRAMS)
    if not start or not champion:
        return None
    difference = fmean(champion) - fmean(start)
    half, by = half_width(start, champion, noise)
    low, high = (None, None) if half is None else (difference - half, difference + half)
    return Headline(base, commit, start, champion, difference, low, high, by)


def by_program(runs: Sequence[HeadlineRun], base: str, commit: str) -> dict[Program, list[Measurement]]:
    """Runs of start and champion that came to a score, as far as they compare with the newest of them."""
    commits: dict[Program, str] = {"start": base, "champion": commit}
    mine = [run for run in runs if run.commit == commits[run.program] and run.measurement.val_bpb is not None]
    return {
        program: [
            run.measurement
            for run in mine
            if run.program == program and comparable(run.measurement, mine[-1].measurement)
        ]
        for program in PROGRAMS
    }


def half_width(a: Sequence[float], b: Sequence[float], noise: Noise | None) -> tuple[float | None, str]:
    """Half of the 95 % interval of a difference of means, and by what it is known.

    Welch's t, 1947, where both were run twice or more; otherwise Student's t of the noise; None where that is unknown.
    """
    if len(a) > 1 and len(b) > 1:
        parts = [(variance(scores) / len(scores), len(scores) - 1) for scores in (a, b)]
        if total := sum(part for part, _ in parts):
            freedom = total**2 / sum(part**2 / below for part, below in parts)
            return student_t(freedom, 0.975) * math.sqrt(total), "Welch"
    if noise is None:
        return None, ""
    error = noise.deviation_bpb * math.sqrt(1 / len(a) + 1 / len(b))
    return student_t(noise.freedom, 0.975) * error, "noise"


def explain_headline(headline: Headline) -> str:
    """One line for people."""
    start, champion = len(headline.start_bpb), len(headline.champion_bpb)
    runs = f"{champion} and {start} run{'s' if start > 1 else ''}, fresh seeds, sealed test split"
    interval = ""
    if headline.low_bpb is not None and headline.high_bpb is not None:
        by = " by the noise of validation runs" if headline.interval_by == "noise" else ""
        interval = f" (95 %{by}: {headline.low_bpb:+.6f} … {headline.high_bpb:+.6f})"
    return f"champion less start {headline.difference_bpb:+.6f} bpb{interval}, by {runs}"


# ---- measuring -------------------------------------------------------------------------------------------------------


def missing_runs(found: Mapping[Program, Sequence[Measurement]], wanted: int) -> list[Program]:
    """Which runs there have to be yet, in turns, so that neither program has the quieter half of the time."""
    have = {program: len(found[program]) for program in PROGRAMS}
    return [program for i in range(wanted) for program in PROGRAMS if i >= have[program]]


def measure_headline(
    ledger: Ledger,
    branch: Champion,
    leases: Redis,
    conditions: Conditions,
    wanted: int,
    *,
    complaint: Callable[[Measurement], str | None],
    by: str,
    say: Callable[[str], None],
    on_phase: Callable[[str], None],
    cancel: threading.Event,
) -> bool:
    """Bring the runs of either program to `wanted`, under the device's lease. Those that the ledger has count.

    Args:
        ledger: as a runner's.
        branch: the campaign's.
        leases: connection that leases devices.
        conditions: what to measure with.
        wanted: runs of each.
        complaint: why a measurement is not what the host signed; None when it is.
        by: command, for the history: each look at the test split is an event.
        say: told the result of each run.
        on_phase: told what is being done, several times a run.
        cancel: when set, the run under way ends, uncounted.

    Returns:
        False if it was cancelled.

    Raises:
        CandidateFailed: champion or start came to no score, by its own fault. That is kept too.
        HostFault: the host failed one run again and again, or something is still on the GPU.
    """
    base, commit = ledger.campaign().base, ledger.champion_commit()
    assert commit is not None, "see why_none"
    good = [run for run in ledger.headline_runs() if complaint(run.measurement) is None]
    now = [run for run in good if conditions.compare(run.measurement)]
    missing = missing_runs(by_program(now, base, commit), wanted)
    commits = {"start": base, "champion": commit}
    if not missing:
        return True
    with hold(leases, conditions.device.id) as keeper:
        for i, program in enumerate(missing, 1):
            label = f"headline, run {i} of {len(missing)}: {program}"
            source = branch.source(commits[program])
            measurement = measure_once(
                ledger, keeper, conditions, source, lambda phase, label=label: on_phase(f"{label}, {phase}"), by, cancel  # type: ignore[misc]
            )  # fmt: skip
            if measurement is None:
                return False
            ledger.add_headline_run(HeadlineRun(program=program, commit=commits[program], measurement=measurement))
            if measurement.failure is not None:
                raise CandidateFailed(f"{label}: {measurement.failure.kind}: {measurement.failure.message}")
            say(f"{label}, {measurement.val_bpb:.6f} bpb on the test split")
    return True


def measure_once(
    ledger: Ledger,
    keeper: Keeper,
    conditions: Conditions,
    source: str,
    on_phase: Callable[[str], None],
    by: str,
    cancel: threading.Event,
) -> Measurement | None:
    """One run that is not the host's failure; None if it was cancelled. Raises HostFault as `measure_headline`."""
    failure = None
    for _ in range(MAX_ATTEMPTS):
        measurement = conditions.measure(
            source,
            secrets.randbelow(2**31),
            f"headline-{secrets.token_hex(6)}",
            on_phase=on_phase,
            unseal=lambda what: ledger.note("test split", f"{what} by {by}"),
            full_audit=True,
            cancel=cancel,
        )
        failure = measurement.failure
        if failure is not None and failure.kind == FailureKind.GPU_DIRTY:
            quarantine(keeper.client, keeper.lease, failure.message)
            raise Quarantined(failure.message)
        if cancel.is_set():
            return None
        if keeper.lost.is_set():
            raise HostFault(
                f"the lease of {conditions.device.id} was lost during the headline; the same command goes on"
            )
        if failure is None or not failure.kind.ours:
            return measurement
    assert failure is not None, "attempts end without a failure of the host's"
    raise HostFault(f"the host failed {MAX_ATTEMPTS} runs of the headline: {failure.message}; the same command goes on")
