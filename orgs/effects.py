"""Worlds to simulate: by how much each idea of a night is better, in bits per byte; negative where it is worse."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from records import BadInput

Effects = NDArray[np.float64]

SIGMA = 0.0005
"""Deviation of one run in bits per byte: 0.000695/√2, of the two runs of the published session (see MAR8) that differ
in nothing but the seed, rounded. A single pair: the truth may well be half or twice as much."""

WORLDS = ("null", "mixed", "late", "mar8")


def draw(world: str | Sequence[float], sigma: float, ideas: int, rng: np.random.Generator) -> Effects:
    """The effects of so many ideas on whatever the champion then is. Improvements add up.

    * null: nothing works;
    * mixed: half of all ideas do nothing, 40 % make it worse by 2σ on average, 10 % better by 3σ (exponential);
    * late: nothing in the first three quarters of the night, then a mixed world with 40 % better ones;
    * mar8, or a list: each of its effects once, in a random order, and over again if they do not suffice.

    Raises:
        BadInput: there is no such world.
    """
    if world == "mar8":
        world = MAR8
    if not isinstance(world, str):
        rounds = math.ceil(ideas / len(world))
        return np.concatenate([rng.permutation(np.asarray(world, dtype=np.float64)) for _ in range(rounds)])[:ideas]
    if world == "null":
        return np.zeros(ideas)
    if world == "mixed":
        return some_work(0.1, 0.4, sigma, ideas, rng)
    if world == "late":
        early = ideas * 3 // 4
        return np.concatenate([np.zeros(early), some_work(0.4, 0.4, sigma, ideas - early, rng)])
    raise BadInput(f"--effects {world}: allowed are {', '.join(WORLDS)}, or a file with a number in each line")


def some_work(better: float, worse: float, sigma: float, ideas: int, rng: np.random.Generator) -> Effects:
    """Effects of which these shares are better and worse, and the others nothing."""
    kind, size = rng.random(ideas), rng.exponential(sigma, ideas)
    return np.where(kind < better, 3 * size, np.where(kind < better + worse, -2 * size, 0.0))


def read_effects(text: str) -> str | tuple[float, ...]:
    """A world by its name, or a file with one improvement in bits per byte a line; `#` begins a comment.

    Raises:
        BadInput: it is neither; names the line.
    """
    if text in WORLDS:
        return text
    path = Path(text)
    if not path.exists():
        raise BadInput(f"--effects {text}: allowed are {', '.join(WORLDS)}, or a file with a number in each line")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None
    effects = [
        read_effect(word, f"{path}, line {n}")
        for n, line in enumerate(lines, 1)
        if (word := line.partition("#")[0].strip())
    ]
    if not effects:
        raise BadInput(f"{path}: has no effects; one improvement in bits per byte a line, negative for worse")
    return tuple(effects)


def read_effect(word: str, where: str) -> float:
    """Raises BadInput that begins with `where`."""
    try:
        effect = float(word)
    except ValueError:
        effect = math.nan
    if not math.isfinite(effect):
        raise BadInput(f"{where}: {word!r} is not a number")
    return effect


# fmt: off
MAR8 = (
    0.011859, 0.004268, -0.000830, 0.000572, 0.000298, 0.000934, 0.001185, 0.003260, -0.000371, 0.000795, 0.000610,
    -0.000784, 0.001015, -0.000695, -0.001030, -0.000720, -0.000555, -0.006236, -0.000073, 0.000255, -0.000536,
    -0.000272, -0.000281, -0.005464, -0.001641, -0.000809, -0.000857, -0.000227, -0.000490, -0.000270, 0.000028,
    -0.003293, -0.001007, -0.006914, -0.001073, 0.000042, -0.001259, -0.001577, 0.000085, -0.000153, -0.007060,
    -0.002339, -0.002634, -0.000775, -0.000150, -0.002218, -0.000411, -0.001945, -0.003768, -0.000365, -0.000018,
    -0.001429, -0.001637, -0.000288, -0.001961, -0.002591, -0.001496, -0.011025, -0.000618, -0.001109, -0.000479,
    -0.000311, -0.003509, -0.000394, 0.000436, -0.000463, 0.000130, -0.000897, -0.000459, -0.000648, -0.001719,
    -0.000773, -0.001027, -0.001027, -0.003662, -0.000088, -0.001233, -0.000749, -0.003836, -0.000773, -0.000367,
    -0.000493, -0.001365, -0.007859, -0.001417, -0.001703, -2.243721, -0.003724, -0.001295, -0.002186, -0.001918,
    -0.000207, 0.000031, -0.000253, -0.000634, -0.000903, -0.001626, -0.001946, -0.000535, -0.000647, 0.000088,
    -0.000429, 0.000951, 0.000403, 0.000222, -0.000211, -0.000270, -0.000179, -0.000325, 0.000481, -0.000815,
    -0.000807, -0.000154, -0.001052, -0.000088, -0.000621, 0.000266, -0.000558, -0.000028, -0.000449, -0.000992,
    -0.000526, -0.000171, -0.000600,
)
# fmt: on
"""Of the published session of karpathy/autoresearch (its results.tsv of 8 March: a baseline and 125 runs, of which one
crashed): the best score before each run less its own, in the order of the runs. Raw: each is a difference of two single
runs, so the noise of both is in it, and the best before, being the luckiest of some, makes all a little too low. 23 of
124 are positive (22 were kept; 0.000028 was not, as "flat"), and 14 of the 22 are smaller than what a change of the seed
alone did (-0.000695). Here they stand for true effects, so the world they make is one in which all 23 are real."""
