"""Front matter of the role files: what a person may set for each role, and nothing that has no effect."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Profile = dict[str, int | float | str]
"""Sizes that the dataset's profile suggests, by name; train.py reads them as PROFILE["name"]."""

LANGUAGE = frozenset({"anthropic", "hybrid"})
"""Minds that ask a language model."""


class ModelSettings(BaseModel):
    """What a mind needs to know that asks a language model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    OF: ClassVar[dict[str, frozenset[str]]] = dict.fromkeys(
        (
            *("model", "effort", "temperature", "max_tokens", "base_url", "key", "key_file", "cache"),
            *("timeout_s", "patience_s", "longest_wait_s", "reasks"),
        ),
        LANGUAGE,
    )
    """The minds for which a setting has an effect; one that is not named here has it for all."""

    model: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """As the API calls it, such as claude-opus-5-5. It needs a price (agents/prices.toml)."""
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    """How much the model thinks; its own default when absent."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Only for models of other servers: Anthropic's present ones refuse it."""
    max_tokens: Annotated[int, Field(ge=256, le=128_000)] = 16_000
    """Of one answer, thinking included."""
    base_url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    """A server of the same Messages API; Anthropic's when absent."""
    key: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "ANTHROPIC_API_KEY"
    """Environment variable that has the API key."""
    key_file: Path | None = None
    """A file with the key, in place of the variable; relative to the lab."""
    cache: Literal["5m", "1h"] = "1h"
    """How long the API keeps the stable part of the prompt: an hour outlives an experiment, and costs twice a token once."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 300.0
    """Of one call."""
    patience_s: Annotated[float, Field(ge=0, le=3600)] = 120.0
    """For how long a call that failed is tried again before the role pauses."""
    longest_wait_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Between two attempts, and while the role pauses."""
    reasks: Annotated[int, Field(ge=0, le=10)] = 3
    """How often an answer that cannot be used is given back with the reason."""


class Settings(ModelSettings):
    """Front matter that every role has; all there is for the reviewer."""

    OF: ClassVar[dict[str, frozenset[str]]] = {**ModelSettings.OF, "script": frozenset({"script"})}

    MINDS: ClassVar[tuple[str, ...]] = ("anthropic", "sampler", "script")

    mind: Literal["anthropic", "hybrid", "sampler", "script"]
    """Who answers. `anthropic` asks a language model; `hybrid` lets that and the sampler take turns, for a planner; `sampler` searches the numeric constants of train.py, without a key and
    without a network; `script` replays what was decided before."""
    script: Path | None = None
    """Of `script`: what `ledger export night.jsonl` wrote, or lines by hand (agents/minds/script.py); relative to the lab."""

    @model_validator(mode="after")
    def settings_are_the_minds(self) -> "Settings":
        if self.mind not in self.MINDS:
            raise ValueError(f"mind: {self.mind} is a planner's; this role may have: {', '.join(self.MINDS)}")
        everyone = frozenset({self.mind})
        idle = {name for name in self.model_fields_set if self.mind not in self.OF.get(name, everyone)}
        if idle:
            raise ValueError(f"{', '.join(sorted(idle))}: has no effect with `mind: {self.mind}`; take it out")
        if self.mind == "script" and self.script is None:
            raise ValueError("`mind: script` needs `script: PATH`, a file that `ledger export night.jsonl` wrote")
        if self.mind in LANGUAGE and self.model is None:
            raise ValueError(f"`mind: {self.mind}` needs `model: NAME`, such as claude-opus-5-5")
        return self


class CoderSettings(Settings):
    OF: ClassVar[dict[str, frozenset[str]]] = {**Settings.OF, **dict.fromkeys(("turns", "preflights"), LANGUAGE)}

    turns: Annotated[int, Field(ge=1, le=200)] = 24
    """Answers of the model for one hypothesis; then it is recorded as not implementable."""
    preflights: Annotated[int, Field(ge=0, le=20)] = 4
    """Times that an edit may be tried in the sandbox, two steps on the CPU each."""


class PlannerSettings(Settings):
    OF: ClassVar[dict[str, frozenset[str]]] = {
        **Settings.OF,
        **dict.fromkeys(("algorithm", "knobs_per_proposal", "frozen", "space"), frozenset({"sampler", "hybrid"})),
        **dict.fromkeys(("proposals", "digest_tokens", "plateau", "quotas"), LANGUAGE),
        "device_hour_usd": frozenset({"hybrid"}),
    }
    MINDS: ClassVar[tuple[str, ...]] = (*Settings.MINDS, "hybrid")

    algorithm: Literal["tpe", "random"] = "tpe"
    """How values are drawn: by a tree-structured Parzen estimator over the ledger's scores, or blindly."""
    knobs_per_proposal: Annotated[int, Field(ge=1, le=8)] = 1
    """Constants that one proposal changes. One keeps a result attributable."""
    frozen: list[str] = []
    """Constants that are never touched."""
    space: dict[str, Annotated[list[int | float], Field(min_length=2, max_length=2)]] = {}
    """`NAME: [low, high]`, in place of the range derived from the champion's value."""
    proposals: Annotated[int, Field(ge=1, le=8)] = 2
    """Hypotheses that one answer may hold."""
    digest_tokens: Annotated[int, Field(ge=500, le=200_000)] = 8_000
    """What the campaign's history may take of the prompt; its least telling lines are left out first."""
    plateau: Annotated[int, Field(ge=2, le=1000)] = 8
    """Misses in a row after which a category that was not tried lately has to be taken."""
    quotas: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    """`category: share`: at most this share of all proposals may be of the category, such as {hyperparameter: 0.5}."""

    device_hour_usd: Annotated[float, Field(ge=0, le=1000)] = 2.5
    """What an hour of the device costs: with the tokens the price of an idea, by which the arms of `hybrid` are compared."""

    @model_validator(mode="after")
    def ranges_have_room(self) -> "PlannerSettings":
        for name, (low, high) in self.space.items():
            if not low < high:
                raise ValueError(f"{name}: [{low}, {high}] must be [low, high] with low < high")
        return self


SETTINGS: dict[str, type[Settings]] = {"planner": PlannerSettings, "coder": CoderSettings, "reviewer": Settings}
