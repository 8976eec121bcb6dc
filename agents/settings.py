"""Front matter of the role files: what a person may set for each role, and nothing that has no effect."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Profile = dict[str, int | float | str]
"""Sizes that the dataset's profile suggests, by name; train.py reads them as PROFILE["name"]."""


class Settings(BaseModel):
    """Front matter that every role has; all there is for the coder and the reviewer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mind: Literal["sampler", "script"]
    """Who answers, neither with a key nor over a network: `sampler` searches the numeric constants of train.py, `script` replays
    what was decided before."""
    script: Path | None = None
    """Of `script`: what `ledger export night.jsonl` wrote, or lines by hand (agents/minds/script.py); relative to the lab."""

    @model_validator(mode="after")
    def settings_are_the_minds(self) -> "Settings":
        theirs = {name for name in self.model_fields_set - {"mind"} if (name == "script") != (self.mind == "script")}
        if theirs:
            raise ValueError(f"{', '.join(sorted(theirs))}: has no effect with `mind: {self.mind}`; take it out")
        if self.mind == "script" and self.script is None:
            raise ValueError("`mind: script` needs `script: PATH`, a file that `ledger export night.jsonl` wrote")
        return self


class PlannerSettings(Settings):
    algorithm: Literal["tpe", "random"] = "tpe"
    """How values are drawn: by a tree-structured Parzen estimator over the ledger's scores, or blindly."""
    knobs_per_proposal: Annotated[int, Field(ge=1, le=8)] = 1
    """Constants that one proposal changes. One keeps a result attributable."""
    frozen: list[str] = []
    """Constants that are never touched."""
    space: dict[str, Annotated[list[int | float], Field(min_length=2, max_length=2)]] = {}
    """`NAME: [low, high]`, in place of the range derived from the champion's value."""

    @model_validator(mode="after")
    def ranges_have_room(self) -> "PlannerSettings":
        for name, (low, high) in self.space.items():
            if not low < high:
                raise ValueError(f"{name}: [{low}, {high}] must be [low, high] with low < high")
        return self


SETTINGS: dict[str, type[Settings]] = {"planner": PlannerSettings, "coder": Settings, "reviewer": Settings}
