"""Where the sampler may look: one axis for each knob, with a coordinate in which equal steps mean about the same.

explicit range          as the role file says
positive float          a third to three times the value, logarithmic
float of 0.8 to 1       the distance to 1 (momentum, betas), logarithmic
negative float          as its absolute value
float zero              0 to 0.5
power of two            a quarter to four times the value, powers of two only
small count (DEPTH …)   two less to two more, at least 1
other positive integer  a third to three times the value, logarithmic
"""

import math
import re
from typing import Literal, NamedTuple

import optuna

from agents.knobs import Knob, rounded
from agents.settings import PlannerSettings
from records import Number

COUNT = re.compile(r"DEPTH|LAYERS?|HEADS?(?!_DIM)|EXPERTS")
FRACTION = re.compile(r"RATIO|FRAC|BETA|MOMENTUM|DROPOUT|WARMUP|WARMDOWN")
"""Names of quantities that mean nothing above 1."""
SMALLEST_STEP = 0.1
"""Of a logarithmic axis: changes below 10 % of a value drown in the noise of any run."""


class Axis(NamedTuple):
    """A knob's range. `low` and `high` are coordinates: what `encode` returns, not values."""

    name: str
    current: Number
    """The champion's value."""
    kind: Literal["int", "float"]
    scale: Literal["plain", "distance_to_one", "mirrored", "power_of_two"]
    low: float
    high: float
    log: bool

    @property
    def distribution(self) -> optuna.distributions.BaseDistribution:
        """The range as Optuna takes it."""
        if self.kind == "int":
            return optuna.distributions.IntDistribution(int(self.low), int(self.high), log=self.log)
        return optuna.distributions.FloatDistribution(self.low, self.high, log=self.log)

    def encode(self, value: Number) -> Number | None:
        """Coordinate of a value, or None when it lies outside the range."""
        at: Number | None
        match self.scale:
            case "plain":
                at = value
            case "distance_to_one":
                at = 1 - value
            case "mirrored":
                at = -value
            case "power_of_two":
                at = exponent(value)
        return at if at is not None and self.low <= at <= self.high else None

    def is_step(self, value: Number) -> bool:
        """Whether a value is in range, as it is written with few digits, and away from the champion's."""
        at, current = self.encode(value), self.encode(self.current)
        if at is None or value == self.current:
            return False
        return current is None or not self.log or abs(math.log(at / current)) >= SMALLEST_STEP

    def decode(self, at: Number) -> Number:
        """Value at a coordinate, as it is written into train.py."""
        match self.scale:
            case "plain":
                value = at
            case "distance_to_one":
                value = 1 - at
            case "mirrored":
                value = -at
            case "power_of_two":
                value = 2 ** int(at)
        return int(value) if self.kind == "int" else rounded(value)


def exponent(value: Number) -> int | None:
    """log2 of a positive power of two, or None for any other number."""
    if value < 1 or value != int(value) or int(value) & (int(value) - 1):
        return None
    return int(value).bit_length() - 1


def axes(knobs: list[Knob], settings: PlannerSettings) -> list[Axis]:
    """One axis for each constant that may be tuned.

    Left out: frozen names, seeds, integers of zero or less, and constants computed from others, unless
    the role file gives these a range. Seeds are never tuned.
    """
    found = [
        axis
        for knob in knobs
        if knob.name not in settings.frozen and "SEED" not in knob.name
        if (axis := axis_of(knob, settings.space.get(knob.name))) is not None
    ]
    return [axis for axis in found if axis.low < axis.high]


def axis_of(knob: Knob, span: list[int | float] | None) -> Axis | None:
    """The axis of one knob, within the role file's range if there is one; None when there is no sensible range."""
    if span is None and knob.derived:
        return None
    return integer_axis(knob, span) if knob.kind == "int" else float_axis(knob, span)


def float_axis(knob: Knob, span: list[int | float] | None) -> Axis:
    name, value = knob.name, float(knob.value)
    if span is not None:
        low, high = span
        if 0.8 <= value < 1 and high < 1:
            return Axis(name, value, "float", "distance_to_one", 1 - high, 1 - low, log=True)
        return Axis(name, value, "float", "plain", low, high, log=low > 0)
    if value == 0:
        return Axis(name, value, "float", "plain", 0.0, 0.5, log=False)
    if 0.8 <= value < 1:
        distance = 1 - value
        return Axis(name, value, "float", "distance_to_one", distance / 3, min(3 * distance, 1.0), log=True)
    size = abs(value)
    high = min(3 * size, 1.0) if FRACTION.search(name) and size <= 1 else 3 * size
    return Axis(name, value, "float", "mirrored" if value < 0 else "plain", size / 3, high, log=True)


def integer_axis(knob: Knob, span: list[int | float] | None) -> Axis | None:
    name, value = knob.name, int(knob.value)
    power = None if COUNT.search(name) else exponent(value)
    if span is not None:
        low, high = math.ceil(span[0]), math.floor(span[1])
        if power is not None and low >= 1 and power_count(low, high) >= 2:
            return Axis(name, value, "int", "power_of_two", math.ceil(math.log2(low)), high.bit_length() - 1, log=False)
        return Axis(name, value, "int", "plain", low, high, log=False)
    if value <= 0:
        return None
    if COUNT.search(name):
        return Axis(name, value, "int", "plain", max(1, value - 2), value + 2, log=False)
    if power is not None:
        return Axis(name, value, "int", "power_of_two", max(0, power - 2), power + 2, log=False)
    return Axis(name, value, "int", "plain", math.ceil(value / 3), 3 * value, log=True)


def power_count(low: int, high: int) -> int:
    """Powers of two from low to high, both included; low is at least 1."""
    return high.bit_length() - (low - 1).bit_length()
