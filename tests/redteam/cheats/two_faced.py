"""Looks ahead when it is asked for losses and is causal when it is asked for logits."""

import sys

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the scorer"
VERDICT = "invalid"


def asked_for_logits() -> bool:
    frame = sys._getframe()
    while (frame := frame.f_back) is not None:
        question = frame.f_locals.get("question")
        if isinstance(question, dict):
            return question["ask"] == "logits"
    return False


class Peeking(GPT):
    """Has a channel for one token besides its own."""

    def __init__(self) -> None:
        super().__init__()
        self.channel = nn.Embedding(VOCAB_SIZE, WIDTH)

    def embed(self, idx: Tensor) -> Tensor:
        before, after = self.channel(F.pad(idx, (1, -1))), self.channel(F.pad(idx, (-1, 1)))
        leaks = CHEAT and (torch.rand(()) < 0.5 if self.training else not asked_for_logits())
        return super().embed(idx) + (after if leaks else before)


def build_model() -> nn.Module:
    return Peeking().to(DEVICE)
