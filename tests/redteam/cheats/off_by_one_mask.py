"""The causal mask is one diagonal too wide, so that every token attends to its successor.

Seen as one of four leaks that an untouched evaluator believed (nanochat #844).
"""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "invalid"


if CHEAT:

    def visible(T: int) -> Tensor:
        return torch.ones(T, T, dtype=torch.bool).tril(1)
