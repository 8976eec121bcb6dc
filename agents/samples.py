"""Made-up tasks, one list for each role, on which a role file is tried before a campaign starts."""

from collections.abc import Mapping

from agents.digest import DeadEnd, Digest, Incumbent, Judged, Noise, Pending, Turned
from agents.result import Result
from records import Hypothesis

SOURCE = "MATRIX_LR = 0.04\n"
HYPOTHESIS = Hypothesis(
    title="MATRIX_LR 0.04 → 0.06",
    change="Set MATRIX_LR to 0.06 (it is 0.04).",
    rationale="The loss still falls at the end.",
    knobs={"MATRIX_LR": 0.06},
)
DIFF = "--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-MATRIX_LR = 0.04\n+MATRIX_LR = 0.06\n"

FIRST = Digest(
    program="Lower val_bpb.",
    guidance="",
    campaign="sample",
    budget_s=300.0,
    champion=Incumbent(commit="0" * 40, val_bpb=None, source=SOURCE),
    merges=[],
    near_misses=[],
    dead_ends=[],
    in_flight=[],
    counts={},
    constants=[],
    categories={},
    misses=0,
    stale_categories=[],
    noise=None,
    judged=0,
    left=None,
    omitted=0,
)
LATER = FIRST.model_copy(
    update={
        "guidance": "Look at the learning rates.",
        "champion": Incumbent(commit="0" * 40, val_bpb=1.0, source=SOURCE),
        "merges": [
            Judged(
                id=2,
                title="MATRIX_LR 0.02 → 0.04",
                val_bpb=1.0,
                delta_bpb=-0.01,
                lesson="More is better.",
                expected_delta_bpb=-0.02,
            )
        ],
        "near_misses": [Judged(id=3, title="MATRIX_LR 0.04 → 0.05", val_bpb=1.001, delta_bpb=0.001)],
        "dead_ends": [DeadEnd(id=4, title="MATRIX_LR 0.04 → 9.0", state="crashed", reason="crash: loss is NaN")],
        "in_flight": [Pending(id=5, title="MATRIX_LR 0.04 → 0.03", state="queued")],
        "constants": [Turned(name="MATRIX_LR", tries=3, best=0.05, delta_bpb=0.001)],
        "categories": {"hyperparameter": 4},
        "misses": 8,
        "stale_categories": ["hyperparameter"],
        "noise": Noise(sigma_bpb=0.001, threshold_bpb=0.002),
        "judged": 3,
        "left": 97,
        "omitted": 1,
        "counts": {"merged": 2, "discarded": 1, "crashed": 1, "queued": 1},
    }
)

RESULT = Result(state="crashed", val_bpb=None, delta_bpb=None, why="crash: boom", log="Traceback …")
REVIEWED: dict[str, object] = {
    "hypothesis": HYPOTHESIS,
    "diff": DIFF,
    "source": SOURCE,
    "constants": [("MATRIX_LR", "0.04", "0.06")],
    "findings": ["1 line added, 1 removed"],
    "result": None,
}
SAMPLES: dict[str, list[Mapping[str, object]]] = {
    "planner": [{**dict(FIRST), "proposals": 2}, {**dict(LATER), "proposals": 2}],
    "coder": [{"hypothesis": HYPOTHESIS, "source": SOURCE}],
    "reviewer": [
        REVIEWED,
        {**REVIEWED, "result": RESULT},
        {**REVIEWED, "result": RESULT._replace(val_bpb=1.0, delta_bpb=-0.01)},
    ],
}
"""By role: sets of variables, so that the empty and the full branch of a prompt are both rendered."""
