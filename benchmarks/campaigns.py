"""Does a merge mean an improvement? Two campaigns whose truth is known, with nothing replaced: containers, Ray, Redis, git.

    python benchmarks/campaigns.py null --experiments 60                        # nothing to find: how often does it merge?
    python benchmarks/campaigns.py null --experiments 60 --rule keep-if-lower   # the original's rule, for comparison
    python benchmarks/campaigns.py planted                                      # one thing to find: is it found, and is it true?

`null` plays a script of programs that do exactly what train.py does, each written in another way (benchmarks/equivalents.py), on
a small dataset, so that a run takes seconds; a few remarks are among them, which are no new programs and cost no run. Every
merge is a false one. `planted` starts from a train.py with one bad constant and lets the sampler search a handful of constants,
that one among them, on the same dataset; what merges is then measured on the sealed test split. Either makes a lab of its
own, launches it by the command line, and prints JSON. Needs what a campaign needs: docker, or root and runc.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from agents.knobs import find, set_knobs, written  # noqa: E402
from benchmarks.equivalents import equivalents, remarked  # noqa: E402
from data.profiles import PROFILES  # noqa: E402
from ledger.rules import RULES  # noqa: E402
from records import Experiment  # noqa: E402
from tests.orgs.lab import command, environment, make_lab  # noqa: E402

SPARE = 8
"""Programs more than judgements, should some be refused."""
REMARKS = 3
"""Of each sort: of the start, and of programs that were measured before."""

ORG = """
name = "{name}"
seed = {seed}
[data]
dataset = ".autoresearch/datasets/local-cpu"
[roles.planner]
file = "roles/planner.md"
[budget]
train_s = {train_s}
experiments = {experiments}
wall_minutes = {wall_minutes}
[audit]
lie_bpb = 0.1
[sandbox]
engine = "{engine}"
device = "cpu"
[merge]
{merge}
[headline]
runs = 0
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    null = commands.add_parser("null", help="a campaign without any effect to find")
    null.add_argument("--experiments", type=int, default=60, help="judgements, which are the K of the error budget")
    null.add_argument("--train-s", type=float, default=2.0)
    null.set_defaults(play=play_null)
    planted = commands.add_parser("planted", help="a campaign with one bad constant to find")
    planted.add_argument("--experiments", type=int, default=20)
    planted.add_argument("--train-s", type=float, default=4.0)
    planted.add_argument("--constant", default="UNEMBEDDING_LR", help="what is made bad")
    planted.add_argument("--factor", type=float, default=0.02, help="by how much")
    others = ["MATRIX_LR", "EMBEDDING_LR", "WARMDOWN", "WEIGHT_DECAY"]
    planted.add_argument("--others", nargs="*", default=others, help="also searched")
    planted.add_argument("--test-runs", type=int, default=4, help="fresh runs of start and champion on the test split")
    planted.set_defaults(play=play_planted)
    for each in (null, planted):
        each.add_argument("--rule", choices=tuple(RULES), default="two-run-min")
        each.add_argument("--alpha", type=float, default=0.05)
        each.add_argument("--noise-runs", type=int, default=8)
        each.add_argument("--seed", type=int, default=1)
        each.add_argument("--engine", default="auto")
        each.add_argument("--lab", type=Path, help="an empty folder to make the lab in, and to keep")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        root = options.lab or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        lab = make_lab(root.absolute())
        began = time.monotonic()
        try:
            found = options.play(lab, options)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{' '.join(error.cmd[3:])} ended with code {error.returncode}, and says why above")
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.platform()}, Python {platform.python_version()}"
    asked = {name: value for name, value in vars(options).items() if name not in ("play", "lab")}
    minutes = round((time.monotonic() - began) / 60, 1)
    print(json.dumps({"machine": machine, "options": asked, "minutes": minutes, **found}, indent=1))


# ---- the two campaigns -----------------------------------------------------------------------------------------------


def play_null(lab: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Programs that are all the same as the start."""
    start = (lab / "train.py").read_text()
    # Under a rule that merges what was lucky, the champion moves, and programs that changed the same lines are refused.
    spare = SPARE if RULES[options.rule].needs_noise else options.experiments
    programs = equivalents(start, options.experiments + spare, options.seed)
    lines = [decision(f"{n}: {', '.join(p.kinds)}", p.source, start) for n, p in enumerate(programs, 1)]
    for n in range(REMARKS):
        lines.insert(2 * n, decision(f"a remark {n}", remarked(start, f"{n}"), start))
        lines.insert(len(lines) // 2 + n, decision(f"a remark on {n + 1}", remarked(programs[n].source, f"{n}"), start))
    follow_script(lab, lines)
    write_org(lab, "null", options)
    launch(lab, "null")
    night = read_night(lab)
    return {"programs": len(lines), **count(night), **effects(night), "ledger": verify(lab)}


def play_planted(lab: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A start that is worse than it need be."""
    train, profile = (lab / "train.py").read_text(), PROFILES["cpu"]
    good = {knob.name: knob.value for knob in find(train, profile)}
    bad = good[options.constant] * options.factor
    bad = round(bad) if isinstance(good[options.constant], int) else bad
    (lab / "train.py").write_text(set_knobs(train, {options.constant: bad}, profile))
    span = [min(bad, good[options.constant]) / 2.5, max(bad, good[options.constant]) * 2.5]
    searched = [options.constant, *options.others]
    frozen = sorted(good.keys() - set(searched))
    space = f"{{{options.constant}: [{', '.join(map(written, span))}]}}"
    recast(lab, "planner", f"mind: sampler\nfrozen: [{', '.join(frozen)}]\nspace: {space}")
    write_org(lab, "planted", options)
    launch(lab, "planted")
    night = read_night(lab)
    return {
        "planted": f"{options.constant} {written(good[options.constant])} → {written(bad)}",
        "searched": searched,
        "range of it": span,
        **count(night),
        "merged": merges(night),
        **claim(night),
        "test split": test_split(lab, options.test_runs),
        "ledger": verify(lab),
    }


# ---- making a campaign -----------------------------------------------------------------------------------------------


def decision(title: str, source: str, base: str) -> dict[str, Any]:
    """A line of a script (agents/minds/script.py)."""
    hypothesis = {"title": title[:120], "change": "as the script has it", "category": "code"}
    return {"hypothesis": hypothesis, "source": source, "base": base}


def follow_script(lab: Path, decisions: Iterable[dict[str, Any]]) -> None:
    """Let planner and coder replay these decisions. The reviewer goes on comparing syntax trees."""
    (lab / "decisions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in decisions))
    for role in ("planner", "coder"):
        recast(lab, role, "mind: script\nscript: decisions.jsonl")


def recast(lab: Path, role: str, front_matter: str) -> None:
    """Give a role another front matter; its prompt stays."""
    path = lab / "roles" / f"{role}.md"
    prompt = path.read_text().partition("\n---\n")[2]
    path.write_text(f"---\n{front_matter}\n---\n{prompt}")


def write_org(lab: Path, name: str, options: argparse.Namespace) -> None:
    merge = f'rule = "{options.rule}"\nalpha = {options.alpha}\nnoise_runs = {options.noise_runs}'
    text = ORG.format(
        name=name,
        seed=options.seed,
        train_s=options.train_s,
        experiments=options.experiments,
        wall_minutes=30
        + 3 * options.experiments,  # an end, should a script have too few programs for the champions it meets
        engine=options.engine,
        merge=merge,
    )
    (lab / "orgs" / f"{name}.toml").write_text(text)


def cli(lab: Path, *arguments: str) -> str:
    """What a command of the command line prints; its complaints go to ours. Raises CalledProcessError."""
    ran = subprocess.run(command(*arguments), cwd=lab, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    return ran.stdout


def launch(lab: Path, name: str) -> None:
    """Run the campaign to its end, its output on our stderr. Raises CalledProcessError."""
    subprocess.run(
        command("launch", f"orgs/{name}.toml"), cwd=lab, env=environment(), stdout=sys.stderr, text=True, check=True
    )


# ---- what it came to -------------------------------------------------------------------------------------------------


def read_night(lab: Path) -> list[Experiment]:
    """All experiments. The runs of a headline, which follow them in the file, are none."""
    cli(lab, "ledger", "export", "night.jsonl")
    rows = map(json.loads, (lab / "night.jsonl").read_text().splitlines())
    return [Experiment.model_validate(row) for row in rows if "state" in row]


def verify(lab: Path) -> dict[str, str]:
    """What `ledger verify` found, by check. Raises CalledProcessError where it does not verify."""
    checks = json.loads(cli(lab, "ledger", "verify", "--json"))
    return {check["name"]: check["found"] for check in checks}


def scores(experiment: Experiment) -> list[float]:
    return [m.val_bpb for m in experiment.measurements if m.val_bpb is not None]


def judged(night: Iterable[Experiment]) -> list[Experiment]:
    """Candidates with a verdict, as opposed to runs of the champion."""
    return [e for e in night if e.lane not in ("baseline", "repeat") and e.verdict is not None]


def count(night: Sequence[Experiment]) -> dict[str, Any]:
    """Verdicts, and what they took."""
    ideas = [e for e in night if e.lane not in ("baseline", "repeat")]
    states = Counter(str(e.state) for e in ideas)
    last = [e.verdict for e in judged(night) if e.verdict is not None][-1:]
    seconds = [
        sum(s for s in (m.startup_seconds, m.train_seconds, m.score_seconds) if s is not None)
        for e in night
        for m in e.measurements
    ]
    return {
        "judged": len(judged(night)),
        "ended": dict(sorted(states.items())),
        "runs of the champion": sum(len(scores(e)) for e in night if e.lane in ("baseline", "repeat")),
        "runs of candidates": sum(len(scores(e)) for e in ideas),
        "second runs": sum(len(scores(e)) > 1 for e in ideas),
        "seconds of a run, median": round(statistics.median(seconds), 1),
        "sigma_bpb": last[0].sigma_bpb if last else None,
        "freedom": last[0].freedom if last else None,
        "threshold_bpb": last[0].threshold_bpb if last else None,
        "p1": last[0].p1 if last else None,
    }


def effects(night: Sequence[Experiment]) -> dict[str, Any]:
    """How much lower than the champion's mean the first runs of candidates were, in bits per byte; and what no false merge in so
    many proves."""
    found = sorted(
        e.verdict.champion_bpb - scores(e)[0]
        for e in judged(night)
        if e.verdict is not None and e.verdict.champion_bpb is not None
    )
    none_merged = not any(e.verdict.merge for e in judged(night) if e.verdict is not None)
    if len(found) < 2:
        return {"effects_bpb": found}
    return {
        "effects_bpb": {
            "lowest": found[0],
            "quartiles": statistics.quantiles(found, n=4, method="inclusive"),
            "highest": found[-1],
            "mean": statistics.fmean(found),
            "deviation": statistics.stdev(found),
            "share above zero": sum(effect > 0 for effect in found) / len(found),
        },
        "false merges of a candidate, at most (95 %)": 1 - 0.05 ** (1 / len(found)) if none_merged else None,
    }


def merges(night: Sequence[Experiment]) -> list[dict[str, Any]]:
    """Each merge: which verdict of the campaign it was, and after how many runs, those of the noise included."""
    found = []
    for e in night:
        if e.lane in ("baseline", "repeat") or e.verdict is None or e.commit is None:
            continue
        runs = sum(m.started_at <= e.measurements[-1].started_at for other in night for m in other.measurements)
        row = {"id": e.id, "title": e.hypothesis.title, "verdict": e.verdict.judged, "runs": runs}
        found.append({**row, "why": e.verdict.reason})
    return found


def claim(night: Sequence[Experiment]) -> dict[str, Any]:
    """What the campaign says that it gained: means of fresh runs, none of which selected anything."""
    fresh: dict[str, list[float]] = {}
    for e in night:
        if e.lane in ("baseline", "repeat") and e.candidate is not None:
            fresh.setdefault(e.candidate.source_sha256, []).extend(scores(e))
    merged = [e for e in night if e.lane not in ("baseline", "repeat") and e.commit is not None]
    if not merged or merged[-1].candidate is None:
        return {"gain_bpb": None, "why": "nothing merged"}
    start, champion = next(iter(fresh.values())), fresh.get(merged[-1].candidate.source_sha256, [])
    if not champion:
        return {"gain_bpb": None, "why": "no fresh run of the champion"}
    return {
        "gain_bpb": statistics.fmean(start) - statistics.fmean(champion),
        "fresh runs": {"start": len(start), "champion": len(champion)},
    }


def test_split(lab: Path, runs: int) -> dict[str, Any]:
    """`report --test`: start and champion with fresh seeds on the sealed split, and whether the whole interval is below zero."""
    cli(lab, "report", "--test", "--runs", str(runs))
    headline: dict[str, Any] = json.loads(cli(lab, "status", "--json"))["headline"] or {}
    return {**headline, "the champion is better": (headline.get("high_bpb") or 0.0) < 0}


if __name__ == "__main__":
    main()
