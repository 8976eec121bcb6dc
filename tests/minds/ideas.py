"""What a competent researcher might try on this repository's train.py, as edits of text that is known to be in it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.minds.prompt import constants

FACTORS = (1.25, 0.8, 1.5, 0.6, 2.0, 0.5, 1.1, 0.9)
KNOBS = (
    "MATRIX_LR", "WARMDOWN", "EMBEDDING_LR", "MLP_RATIO", "WEIGHT_DECAY", "UNEMBEDDING_LR", "ADAM_BETA1", "SCALAR_LR", "ROPE_BASE",
)  # fmt: skip
SHARES = {"WARMDOWN", "ADAM_BETA1"}
"""Between 0 and 1."""


@dataclass(frozen=True)
class Idea:
    title: str
    why: str
    category: str
    edits: tuple[tuple[str, str], ...]
    """What goes, what comes in its place; each text that goes occurs once."""
    knobs: dict[str, int | float] = field(default_factory=dict)

    @property
    def change(self) -> str:
        """The instruction for a coder; edits are spelled out, so that nothing has to be guessed."""
        if self.knobs:
            return "\n".join(f"Set {name} to {value}." for name, value in self.knobs.items())
        return "\n".join(f"Replace\n```text\n{old}\n```\nby\n```text\n{new}\n```" for old, new in self.edits)


STRUCTURE = (
    Idea(
        "GELU in the MLP in place of squared ReLU",
        "A smooth activation lets small negative inputs through, which may help a shallow model.",
        "architecture",
        (
            (
                "        if HOPPER:\n"
                "            return fused_mlp(x.flatten(0, 1), self.up.weight.to(x.dtype), self.down.weight.to(x.dtype))[0].view_as(x)\n"
                "        return self.down(F.relu(self.up(x)).square())",
                "        return self.down(F.gelu(self.up(x)))",
            ),
        ),
    ),
    Idea(
        "Logits without a softcap",
        "In so short a training logits stay small; the cap only costs a tanh per logit.",
        "architecture",
        (
            (
                "        return SOFTCAP * torch.tanh(self.unembedding(self.features(idx)).float())",
                "        return SOFTCAP * self.unembedding(self.features(idx)).float()",
            ),
            (
                "    if HOPPER:\n"
                "        x, w = model.features(inputs).flatten(0, 1), model.unembedding.weight\n"
                "        return fused_loss(x, w.to(x.dtype), targets.flatten())[0]\n",
                "",
            ),
        ),
    ),
    Idea(
        "Half the tokens per step",
        "In a short training more steps are worth more than smoother gradients.",
        "schedule",
        (
            (
                'TOTAL_BATCH_TOKENS = PROFILE["total_batch_tokens"]',
                'TOTAL_BATCH_TOKENS = PROFILE["total_batch_tokens"] // 2',
            ),
        ),
    ),
    Idea(
        "No norm right after the embedding",
        "Embeddings start with unit variance, and each block norms what it reads anyway.",
        "architecture",
        (
            (
                "        first = norm(self.embedding(idx).to(COMPUTE_DTYPE))",
                "        first = self.embedding(idx).to(COMPUTE_DTYPE)",
            ),
        ),
    ),
)


def ideas(program: str) -> Iterator[Idea]:
    """Ideas for a train.py, the more promising first: constants and structure in turn, then what is left of the constants."""
    numbers = list(numeric(program))
    for idea in STRUCTURE:
        if numbers:
            yield numbers.pop(0)
        if all(program.count(old) == 1 for old, _ in idea.edits):
            yield idea
    yield from numbers


def numeric(program: str) -> Iterator[Idea]:
    """Each known constant times each factor."""
    found = {name: text for name, text in constants(program).items() if name in KNOBS}
    for factor in FACTORS:
        for name in [name for name in KNOBS if name in found]:
            was = found[name]
            is_float = any(mark in was for mark in ".eE")
            value = float(f"{float(was) * factor:.4g}") if is_float else round(int(was) * factor)
            if value == float(was) or (name in SHARES and not 0 < value < 1):
                continue
            yield Idea(
                f"{name} {was} → {value}",
                f"{name} was chosen for a longer training; {'more' if factor > 1 else 'less'} of it may suit this budget.",
                "hyperparameter",
                (),
                {name: value},
            )
