"""The ledger of one campaign: every experiment, where it stands, and the steps that it may take."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeVar

import redis

import failpoint
from ledger import scripts
from ledger.intent import Intent
from ledger.lease import Lease
from ledger.rows import Stored, read_event, read_experiment, store_experiment
from ledger.schema import SCHEMA
from records import (
    BadInput,
    Campaign,
    Candidate,
    Event,
    Experiment,
    FailureKind,
    HeadlineRun,
    Hypothesis,
    Lesson,
    Measurement,
    MissingComponent,
    Progress,
    Review,
    State,
    Verdict,
)

T = TypeVar("T")

CAMPAIGNS = "autoresearch:campaigns"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
CLAIM_PATIENCE_S = 900.0
"""A claim older than this belongs to a worker that died: a mind answers in seconds to minutes."""
MAX_REBASES = 3
REBUILT = "rebuilt"
IMPORTED = "imported"
"""Kind of the first event of a history that does not begin with the campaign."""
READ_AT_ONCE = 1000
"""Rows of one transaction: some ten milliseconds of the server's time."""
RECORDS = ("hypothesis", "candidate", "review", "lesson", "verdict", "claim")
"""Of a row, beside its measurements: each is in the history, by its digest. That of a baseline or repeat is the same for all, and is not."""
RESULTS = (State.MERGED, State.WITHIN_NOISE, State.DISCARDED, State.STALE, State.CRASHED, State.INVALID)
"""Where an experiment ends that had its turn on a device."""


VERDICTS = (State.MERGED, State.WITHIN_NOISE, State.DISCARDED)
"""Where it ends that was judged by its scores: each is one of the K judgements of the error budget."""


AT_WORK = (State.RUNNING, State.SCORED, State.CONFIRMING, State.MERGING)


class Running(NamedTuple):
    """What is on a device at this moment. Telemetry: for people, never evidence."""

    experiment: int
    device: str
    phase: str
    progress: Progress | None
    since: str
    """UTC, ISO 8601: when it was put on the device."""


class Spent(NamedTuple):
    """What a campaign has used up. The seconds of baselines and repeats count; they are no experiments."""

    started: int
    """On a device, waiting for the verdict, or ended by its result."""
    judged: int
    """Ended by its result: in one of RESULTS."""
    verdicts: int
    """Judged by its scores: in one of VERDICTS. Those count too that a rebuilt ledger has lost."""
    open: int
    """Proposed, claimed, coded or queued: its run lies ahead."""
    device_s: float
    """Seconds of all measurements: start-up, training and scoring."""


class Ledger:
    """One campaign in Redis.

    Args:
        client: a connection with `decode_responses=True`, as `ledger.server.connect` makes it.
        campaign: its name; `create` makes the campaign.
        reader: another connection, for all that is only read: a user who may do a step need not be one who may read.

    Every step below raises BadInput for an unknown id and WrongState when the experiment is not where the step starts;
    it has then changed nothing.
    """

    def __init__(self, client: redis.Redis, campaign: str, reader: redis.Redis | None = None):
        # Any: the types of redis-py say of every answer that it may be one to wait for.
        self.client: Any = client
        self.reader: Any = reader or client
        self.name = campaign
        self.prefix = f"autoresearch:campaign:{campaign}:"

    # ---- the campaign ------------------------------------------------------------------------------------------------

    @staticmethod
    def campaigns(client: redis.Redis) -> list[str]:
        """Names of all campaigns, oldest first."""
        reader: Any = client
        return list(reader.zrange(CAMPAIGNS, 0, -1))

    def create(self, campaign: Campaign) -> None:
        """Begin the campaign. Raises BadInput if the name exists or is no name."""
        self.check_name(campaign)
        self.run("create", campaign.name, campaign.model_dump_json(), SCHEMA)

    def load(self, campaign: Campaign, rows: Sequence[Experiment], source: str, detail: str, *, champion: Experiment | None = None) -> None:  # fmt: skip
        """Put in a whole campaign that has ended elsewhere.

        Args:
            campaign: its record.
            rows: all its experiments, by id.
            source: REBUILT or IMPORTED; the first event's kind.
            detail: of that event: the tip of the branch, or the file.
            champion: the one of them that is to beat.

        Raises:
            BadInput: the name exists, or is no name.
        """
        self.check_name(campaign)
        measured = [m for row in rows for m in row.measurements]
        crown = ("", "") if champion is None else (champion.id, champion.commit or "")
        parts = json.dumps([part_of_load(row) for row in rows])
        device_ms = sum(round(device_seconds(m) * 1000) for m in measured)
        verdicts = [row.verdict.judged or 0 for row in rows if row.is_idea and row.state in VERDICTS and row.verdict]
        lost = max([0, *verdicts]) - len(verdicts)  # what did not merge was judged too: git says how much there was
        given = (campaign.name, campaign.model_dump_json(), SCHEMA, source, detail)
        self.run("load", *given, parts, *crown, device_ms, max(0, lost))

    def check_name(self, campaign: Campaign) -> None:
        if campaign.name != self.name or not NAME.fullmatch(campaign.name):
            raise BadInput(f"campaign {campaign.name!r}: a name is letters, digits, '.', '_' and '-', at most 80")

    def campaign(self) -> Campaign:
        """Raises MissingComponent if there is none."""
        text = self.reader.get(self.prefix + "campaign")
        if text is None:
            raise MissingComponent(f"no campaign {self.name} in this ledger: launch it first")
        return Campaign.model_validate_json(text)

    def add_headline_run(self, run: HeadlineRun) -> None:
        """Keep a run of the headline, whatever came of it. Raises AlreadyRecorded if it is kept already."""
        measurement = run.measurement
        score = measurement.status if measurement.val_bpb is None else f"{measurement.val_bpb:.6f} bpb"
        key = "" if measurement.val_bpb is None else result_key(measurement)
        detail = f"{run.program} {run.commit[:10]} on {measurement.split}: {score}"
        self.run("headline", run.model_dump_json(), key, detail)

    def headline_runs(self) -> list[HeadlineRun]:
        """Every run of the headline, oldest first."""
        texts = self.reader.lrange(self.prefix + "headline", 0, -1)
        return [HeadlineRun.model_validate_json(text) for text in texts]

    def set_stop(self, reason: str) -> None:
        """Say that the campaign is over, and why."""
        self.client.set(self.prefix + "stop", reason)

    def stop_reason(self) -> str | None:
        reason: str | None = self.reader.get(self.prefix + "stop")
        return reason

    def clear_stop(self) -> None:
        self.client.delete(self.prefix + "stop")

    # ---- ideas -------------------------------------------------------------------------------------------------------

    def propose(
        self,
        hypothesis: Hypothesis,
        *,
        author: str,
        lane: Literal["improve", "simplify", "combine", "upkeep"] = "improve",
        roles: dict[str, str],
        max_open: int | None = None,
        talk: str = "",
        microdollars: int = 0,
    ) -> int | None:
        """Put an idea on the list.

        Args:
            hypothesis: the idea.
            author: `role/mind`.
            lane: rules that it will be judged by.
            roles: SHA-256 of the role files that had a hand in it.
            max_open: do nothing when this many experiments wait for a device already.
            talk: the conversation that it comes from, if a language model had the idea.
            microdollars: its share of what that conversation cost: counts towards what may be spent on it.

        Returns:
            The new id, or None when the list is full.
        """
        limit = "" if max_open is None else max_open
        signed = (author, lane, json.dumps(roles), limit, talk, microdollars)
        id: int | None = self.run("propose", hypothesis.model_dump_json(), *signed)
        return id

    def propose_baseline(self, candidate: Candidate, champion: str = "*") -> int:
        """Queue the train.py of commit `candidate.parent` as it stands. With a score, `crown` makes that commit the champion.

        Idempotent: a commit that has a baseline already is not queued again, unless the branch was set back to it.
        Raises WrongState if `champion` (a commit, empty for none yet, `*` for any) is not the champion, or about to be none.
        """
        hypothesis = Hypothesis(title="baseline", change="none: the starting point", category="baseline")
        program = (candidate.model_dump_json(), candidate.parent, candidate.meaning_sha256, champion)
        id: int = self.run("propose_baseline", hypothesis.model_dump_json(), "launcher", *program)
        return id

    def propose_repeat(self, candidate: Candidate, champion: int, number: int, category: str = "repeat") -> int | None:
        """Queue one more run of the champion's program.

        Args:
            candidate: the program, as it stands on the branch.
            champion: id of the experiment that made it champion.
            number: how many repeats of that one there are: whoever asks counts before.
            category: why it is run again.

        Returns:
            The new id, or None if somebody else asked first. Raises WrongState if `champion` is it no more.
        """
        change = f"none: one more run of the program of #{champion}"
        hypothesis = Hypothesis(title=f"champion again (#{champion})", change=change, category=category)
        program = (candidate.model_dump_json(), candidate.parent, candidate.meaning_sha256)
        id: int | None = self.run("propose_repeat", hypothesis.model_dump_json(), "arbiter", *program, champion, number)
        return id

    def repeats(self) -> dict[int, int]:
        """Every repeat → the experiment that it repeats."""
        pairs = self.reader.zrange(self.prefix + "lane:repeat", 0, -1, withscores=True)
        return {int(id): int(of) for id, of in pairs}

    def champions(self) -> list[int]:
        """Ids of all that are, or were, champion."""
        return [int(id) for id in self.reader.zrange(self.state_key(State.MERGED), 0, -1)]

    def claim(self, worker: str) -> Experiment | None:
        """The oldest idea, now this worker's: proposed → claimed. A claim left for CLAIM_PATIENCE_S is given again."""
        return self.found(self.run("claim", worker, round(CLAIM_PATIENCE_S * 1000)))

    def take_back(self, worker: str) -> None:
        """claimed → proposed for whatever a dead worker of this name held."""
        ids = [int(id) for id in self.reader.zrange(self.state_key(State.CLAIMED), 0, -1)]
        for id, owner in zip(ids, self.read(ids, lambda id, pipe: pipe.hget(self.row_key(id), "worker")), strict=True):
            if owner == worker:
                with suppress(scripts.WrongState):  # somebody else was faster
                    self.release(id)

    def release(self, id: int) -> None:
        """claimed → proposed: the worker gives up the task, not the idea."""
        self.run("release", id)

    def code(self, id: int, candidate: Candidate, roles: dict[str, str]) -> int | None:
        """claimed → coded, or → duplicate when another experiment owns a program of the same meaning.

        Returns:
            The id of the owner of the same program, or None.
        """
        program = (candidate.model_dump_json(), candidate.parent, candidate.meaning_sha256)
        owner: int | None = self.run("code", id, *program, json.dumps(roles))
        return owner

    def refuse(self, id: int, note: str, roles: dict[str, str]) -> None:
        """claimed | coded → refused: it cannot be implemented."""
        self.run("refuse", id, note, json.dumps(roles))

    def next_coded(self) -> Experiment | None:
        """The oldest candidate without a review."""
        return self.oldest(State.CODED)

    def review(self, id: int, review: Review, roles: dict[str, str]) -> None:
        """coded → queued | refused."""
        to = State.QUEUED if review.approved else State.REFUSED
        self.run("review", id, review.model_dump_json(), to, f"{review.code}: {review.reason}", json.dumps(roles))

    def learn(self, id: int, lesson: Lesson, roles: dict[str, str]) -> None:
        """Write down what an experiment taught, once its result is in: no step, the state stays. Raises WrongState before that."""
        self.run("learn", id, lesson.model_dump_json(), json.dumps(roles))

    # ---- runs --------------------------------------------------------------------------------------------------------

    def take(self, lease: Lease, champion: str, *, new: bool = True) -> Experiment | None:
        """What is next: queued | confirming → running under this lease. Baselines and repeats come first, then second runs, then the
        oldest candidate made from `champion` (if a `new` one may begin). Queued ones of older champions go back to proposed.

        A runner that holds one already is given that one again. Raises StaleFence when the lease is over.
        """
        return self.found(self.run("take", lease.device, lease.fence, lease.holder, champion, int(new)))

    def record(self, id: int, lease: Lease, measurement: Measurement, *, max_attempts: int = 3) -> None:
        """running → scored | crashed | invalid. After a failure of the host → where it was taken from, and → crashed after
        `max_attempts` of them.

        Raises:
            AlreadyRecorded: this program was measured under this seed before; seeds are fresh, so this is that very result.
            StaleFence: the lease is over, or the experiment runs under another one.
        """
        outcome, note = outcome_of(measurement)
        self.run(
            "record",
            id,
            lease.device,
            lease.fence,
            lease.holder,
            outcome,
            measurement.model_dump_json(),
            "" if measurement.val_bpb is None else result_key(measurement),
            round(device_seconds(measurement) * 1000),
            "" if measurement.val_bpb is None else repr(measurement.val_bpb),
            note,
            max_attempts,
        )

    def progress(self, id: int, lease: Lease, phase: str, progress: Progress | None) -> None:
        """Tell people how a run gets on. Shown only while it runs under this lease."""
        live = {"fence": lease.fence, "phase": phase, "progress": progress and progress.model_dump()}
        self.client.hset(self.run_key(id), "live", json.dumps(live))

    def running(self) -> list[Running]:
        """What is on the devices."""
        ids = [int(id) for id in self.reader.zrange(self.state_key(State.RUNNING), 0, -1)]
        found: list[Running] = []
        for row in self.stored(ids):
            if row.state != State.RUNNING:
                continue
            live = json.loads(row.run.get("live", "{}"))
            if live.get("fence") != int(row.run["fence"]):
                live = {"phase": "starting", "progress": None}
            progress = live["progress"] and Progress.model_validate(live["progress"])
            found.append(Running(row.id, row.run["device"], live["phase"], progress, row.updated_at))
        return found

    # ---- arbitration -------------------------------------------------------------------------------------------------

    def next_scored(self) -> Experiment | None:
        """The oldest experiment that waits for a verdict."""
        return self.oldest(State.SCORED)

    def next_merging(self) -> Experiment | None:
        """The experiment of the open intent."""
        return self.oldest(State.MERGING)

    def outbox(self) -> dict[str, str]:
        """What waits for the relay: experiment → JSON of its intent. Whoever can write to Redis may have put it there."""
        entries: dict[str, str] = self.reader.hgetall(self.prefix + "outbox")
        return entries

    def crown(self, id: int, commit: str) -> None:
        """scored → merged for the baseline of `commit`, which is now the champion."""
        self.run("crown", id, commit)

    def pool(self, id: int) -> None:
        """scored → pooled for a repeat."""
        self.run("pool", id)

    def unseat(self, id: int, reason: str) -> None:
        """The champion's scores count no more, so it has to be measured as if it were new.

        Raises WrongState if this experiment did not make the champion, or while a merge is under way.
        """
        self.run("unseat", id, reason)

    def decisions(self) -> str:
        """How many decisions the arbiter has taken. A verdict that was thought out then is refused once there are more."""
        return str(self.reader.hget(self.prefix + "champion", "decisions") or "0")

    def confirm(self, id: int, verdict: Verdict, decisions: str = "*") -> None:
        """scored → confirming: it is run again. Raises WrongState as `discard`."""
        self.run("confirm", id, verdict.model_dump_json(), verdict.reason, decisions)

    def discard(self, id: int, verdict: Verdict, decisions: str = "*") -> None:
        """scored → discarded | within_noise. Raises WrongState if there are more `decisions` by now (`*`: any number)."""
        to = State.WITHIN_NOISE if verdict.within_noise else State.DISCARDED
        self.run("discard", id, verdict.model_dump_json(), verdict.reason, to, decisions)

    def rebase(self, id: int, note: str) -> None:
        """scored | confirming → proposed: its parent is no longer the champion, so its scores say nothing. Stale after
        MAX_REBASES."""
        self.run("rebase", id, note, MAX_REBASES, self.measured(id))

    def measured(self, id: int | str) -> int:
        """How many measurements of an experiment there are."""
        return int(self.reader.llen(f"{self.prefix}measurements:{id}"))

    def intend_merge(self, verdict: Verdict, intent: Intent, decisions: str = "*") -> None:
        """scored → merging, with the intent in the outbox.

        Raises WrongState when another merge is under way, the intent's parent is not the champion, or as `discard`.
        """
        args = (verdict.model_dump_json(), intent.parent, intent.commit, intent.model_dump_json(), decisions)
        self.run("intend_merge", intent.experiment, *args)

    def merged(self, id: int, lease: Lease, commit: str, text: str) -> None:
        """merging → merged: git has the commit, which is now the champion; the outbox has this text no longer.

        One that comes again, for an experiment that is merging no longer, is taken out of the outbox and no more.

        Raises StaleFence when the relay's lease is over.
        """
        self.run("merged", id, lease.fence, lease.holder, commit, text)

    def abandon_merge(self, id: int | str, lease: Lease, note: str) -> None:
        """merging → proposed: the commit is not on the branch and will not be. Stale after MAX_REBASES.

        An entry of the outbox that is no experiment's merge is taken out alone. Raises StaleFence as `merged`.
        """
        self.run("abandon_merge", id, lease.fence, lease.holder, note, MAX_REBASES, self.measured(id))

    def champion_commit(self) -> str | None:
        """The commit whose score is to beat; None until the baseline is measured."""
        commit: str | None = self.reader.hget(self.prefix + "champion", "commit")
        return commit

    def champion_experiment(self) -> Experiment | None:
        """The experiment that made the champion: a merged one, or a baseline."""
        id = self.reader.hget(self.prefix + "champion", "experiment")
        return self.found(id and int(id))

    def champion_score(self) -> list[Measurement]:
        """Every scored measurement of exactly the champion's train.py."""
        champion = self.champion_experiment()
        if champion is None:
            return []
        repeats = sorted(id for id, of in self.repeats().items() if of == champion.id)
        return [m for row in (champion, *self.rows(repeats)) for m in row.runs]

    # ---- reading -----------------------------------------------------------------------------------------------------

    def experiment(self, id: int) -> Experiment:
        """One row. Raises BadInput for an unknown id."""
        rows = self.rows([id])
        if not rows:
            raise BadInput(f"no experiment #{id} in campaign {self.name}")
        return rows[0]

    def last_id(self) -> int:
        """Of the newest experiment; 0 if there is none."""
        return int(self.reader.get(self.prefix + "ids") or 0)

    def experiments(self, *, states: Collection[State] | None = None) -> list[Experiment]:
        """All rows, or those in some states, oldest first."""
        keys = [self.state_key(state) for state in (State if states is None else states)]
        ids = sorted({int(id) for ids in self.read(keys, lambda key, pipe: pipe.zrange(key, 0, -1)) for id in ids})
        return [row for row in self.rows(ids) if states is None or row.state in states]

    def counts(self) -> dict[State, int]:
        """How many experiments stand in each state; states without any are left out."""
        counts = self.read(State, lambda state, pipe: pipe.zcard(self.state_key(state)))
        return {state: count for state, count in zip(State, counts, strict=True) if count}

    def spent(self) -> Spent:
        """What has been used up. No row is read: this is asked several times a second."""
        keys = (self.prefix + "lane:baseline", self.prefix + "lane:repeat")
        others = [id for ids in self.read(keys, lambda key, pipe: pipe.zrange(key, 0, -1)) for id in ids]

        def ask(state: State, pipe: Any) -> None:
            pipe.zcard(self.state_key(state))
            pipe.zmscore(self.state_key(state), others or ["none"])

        answers = self.read(State, ask)
        standing = {
            state: count - sum(score is not None for score in scores)
            for state, count, scores in zip(State, answers[::2], answers[1::2], strict=True)
        }
        judged = sum(standing[state] for state in RESULTS)
        at_work = sum(standing[state] for state in AT_WORK)
        unfinished = sum(count for state, count in standing.items() if not state.final)
        device_ms = int(self.reader.hget(self.prefix + "spent", "device_ms") or 0)
        lost = int(self.reader.hget(self.prefix + "champion", "lost_verdicts") or 0)
        verdicts = sum(standing[state] for state in VERDICTS) + lost
        return Spent(judged + at_work, judged, verdicts, unfinished - at_work, device_ms / 1000)

    def events(self, after: int = 0, count: int = 1000) -> list[Event]:
        """Up to `count` events, oldest first, that came after the one with this id; the first has id 1."""
        texts = self.reader.lrange(self.prefix + "events", after, after + count - 1)
        return [read_event(id, json.loads(text)) for id, text in enumerate(texts, after + 1)]

    def note(self, kind: str, detail: str) -> None:
        """Put something into the history that concerns the campaign as a whole."""
        self.run("note", kind, detail)

    def head(self) -> str:
        """Hash of the newest event, which covers all before it."""
        newest = self.reader.lindex(self.prefix + "events", -1)
        return "" if newest is None else str(json.loads(newest)["hash"])

    def last_event(self) -> int:
        """Id of the newest event, for `events(after=...)`."""
        return int(self.reader.llen(self.prefix + "events"))

    # ---- after a crash -----------------------------------------------------------------------------------------------

    def recover(self) -> list[str]:
        """Take back what dead workers held. Only for a launcher that holds the campaign's lock.

        Returns:
            A line for each experiment that was taken back.
        """
        lines: list[str] = []
        for id in [int(id) for id in self.reader.zrange(self.state_key(State.CLAIMED), 0, -1)]:
            self.release(id)
            failpoint.reach("launcher.released")
            lines.append(f"#{id} was being written when the last launcher ended: proposed again")
        lines += [f"#{id} was running when its runner ended: queued again" for id in self.requeue_orphans()]
        return lines + [f"#{id} crashed for the host's own reasons: it is tried again" for id in self.requeue_failed()]

    def requeue_orphans(self) -> list[int]:
        """running → queued for every run whose lease is over; the attempt is not counted. Returns their ids."""
        ids: list[int] = self.run("requeue_orphans")
        return ids

    def requeue_failed(self) -> list[int]:
        """crashed → where it was taken from, for what the host failed too often: baselines and repeats of the champion each time, an
        idea once. Returns their ids."""
        ids: list[int] = self.run("requeue_failed")
        return ids

    # ---- Redis -------------------------------------------------------------------------------------------------------

    def run(self, name: str, *args: str | int | float) -> Any:
        return scripts.run(self.client, name, self.prefix, *args)

    def row_key(self, id: int) -> str:
        return f"{self.prefix}experiment:{id}"

    def run_key(self, id: int) -> str:
        return f"{self.prefix}run:{id}"

    def verdict_key(self, id: int) -> str:
        return f"{self.prefix}verdict:{id}"

    def measurements_key(self, id: int) -> str:
        return f"{self.prefix}measurements:{id}"

    def state_key(self, state: State) -> str:
        return f"{self.prefix}state:{state}"

    def read(self, items: Iterable[T], ask: Callable[[T, Any], object]) -> list[Any]:
        """The answers for all items, read at the same moment."""
        with self.reader.pipeline(transaction=True) as pipe:
            for item in items:
                ask(item, pipe)
            answers: list[Any] = pipe.execute()
            return answers

    def ask_rows(self, ids: Sequence[int], pipe: Any) -> None:
        """Ask for all that `answered` wants: first what sets say of all ids, then the parts of each."""
        of_all = ("lane:baseline", "lane:repeat", "updated")
        keys = [*(self.state_key(state) for state in State), *(self.prefix + key for key in of_all)]
        for key in keys:
            pipe.zmscore(key, list(ids))
        for id in ids:
            for key in (self.row_key(id), self.run_key(id), self.verdict_key(id)):
                pipe.hgetall(key)
            pipe.lrange(self.measurements_key(id), 0, -1)

    def answered(self, ids: Sequence[int], answers: Sequence[Any]) -> list[Stored]:
        """What is stored of these ids, where there is anything."""
        sets, parts = answers[: len(State) + 3], answers[len(State) + 3 :]
        found: list[Stored] = []
        for i, id in enumerate(ids):
            *turns, baseline, of, updated = (scores[i] for scores in sets)
            states = tuple(state for state, turn in zip(State, turns, strict=True) if turn is not None)
            if states and parts[4 * i]:
                repeats = None if of is None else int(of)
                found.append(
                    Stored(id, states, baseline is not None, repeats, int(updated or 0), *parts[4 * i : 4 * i + 4])
                )
        return found

    def stored(self, ids: Iterable[int]) -> list[Stored]:
        found: list[Stored] = []
        for chunk in batched(ids, READ_AT_ONCE):
            found += self.answered(chunk, self.read([chunk], self.ask_rows))
        return found

    def rows(self, ids: Iterable[int]) -> list[Experiment]:
        """The rows of these ids that exist."""
        return [read_experiment(self.name, row) for row in self.stored(ids)]

    def found(self, id: int | None) -> Experiment | None:
        return None if id is None else self.experiment(id)

    def oldest(self, state: State) -> Experiment | None:
        first = self.reader.zrange(self.state_key(state), 0, 0)
        return self.experiment(int(first[0])) if first else None


def outcome_of(measurement: Measurement) -> tuple[str, str]:
    """Where a measurement leads (a state, or `host` for a failure of ours) and the note that says why."""
    failure = measurement.failure
    if failure is None:
        return State.SCORED, ""
    note = f"{failure.kind}: {failure.message}"
    if failure.kind.ours:
        return "host", note
    return State.INVALID if failure.kind == FailureKind.INVALID else State.CRASHED, note


def device_seconds(measurement: Measurement) -> float:
    """Seconds that a measurement kept the device busy."""
    phases = (measurement.startup_seconds, measurement.train_seconds, measurement.score_seconds)
    return sum(seconds for seconds in phases if seconds is not None)


def result_key(measurement: Measurement) -> str:
    """SHA-256 of what was measured, on what, with what, under which seed: the same key means the same result."""
    hashes = measurement.hashes
    parts = (hashes.source, measurement.split, measurement.seed, hashes.dataset, hashes.tokenizer, hashes.prepare)
    return hashlib.sha256(json.dumps([*parts, hashes.scorer, hashes.image]).encode()).hexdigest()


def part_of_load(experiment: Experiment) -> dict[str, Any]:
    """One row for lua/load.lua; what becomes a record of the history is named there."""
    stored, score, claim = store_experiment(experiment), experiment.score, experiment.claim
    bpb = score.val_bpb if score is not None else claim.bpb if claim is not None else None
    texts = stored.row | stored.verdict
    names = [name for name in RECORDS if name in texts and not (stored.of_branch and name == "hypothesis")]
    return {
        "id": stored.id,
        "state": experiment.state,
        "baseline": stored.baseline,
        "repeats": stored.repeats or 0,
        "detail": experiment.commit or experiment.why,
        "updated": stored.updated_ms,
        "bpb": "" if bpb is None else repr(bpb),
        "row": stored.row,
        "run": stored.run,
        "verdict": stored.verdict,
        "measurements": stored.measurements,
        "results": [result_key(m) for m in experiment.measurements if m.val_bpb is not None],
        "records": [(name, texts[name]) for name in names] + [("measurement", text) for text in stored.measurements],
    }


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`; the last one may be shorter. As in itertools, from Python 3.12 on."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
