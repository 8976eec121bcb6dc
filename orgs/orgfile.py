"""The org file: who is in the org, on which data, with which budget and merge rule.

`OrgFile.load` turns `orgs/*.toml` into checked values. Whatever is wrong with the file ends as one line that names the
file, the key and what is allowed.
"""

import hashlib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agents.prices import Prices
from agents.role import RoleFile
from agents.settings import LANGUAGE, SETTINGS, PlannerSettings, Settings
from ledger.purse import MILLION, Limits
from ledger.rules import make_rule
from records import BadInput, Policy
from sandbox.device import Device
from sandbox.engines import Engine
from sandbox.profile import STOLEN_CPU
from sandbox.profile import Limits as SandboxLimits
from sandbox.ready import ready_engine
from sandbox.score import Rigour

RoleName = Literal["planner", "coder", "reviewer"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RoleSeat(Section):
    file: Path
    """Role file, relative to the lab."""
    seats: Annotated[int, Field(ge=1, le=16)] = 1
    """Actors that play the role at the same time."""
    settings: dict[str, Any] | None = None
    """In place of the role file's front matter: the same prompt with another mind."""

    def role_file(self, lab: Path) -> RoleFile:
        return RoleFile(lab / self.file, self.settings)

    def asks_a_model(self, lab: Path) -> bool:
        """Whether its mind is a language model. Raises BadInput."""
        return self.role_file(lab).load().settings(Settings).mind in LANGUAGE


class Roles(Section):
    planner: RoleSeat = RoleSeat(file=Path("roles/planner.md"))
    coder: RoleSeat = RoleSeat(file=Path("roles/coder.md"))
    reviewer: RoleSeat = RoleSeat(file=Path("roles/reviewer.md"))

    def items(self) -> list[tuple[RoleName, RoleSeat]]:
        return [("planner", self.planner), ("coder", self.coder), ("reviewer", self.reviewer)]


class Data(Section):
    corpus: Literal["python", "local", "climbmix", "tinystories"] = "python"
    paths: list[Path] = []
    """Files and folders of a `local` corpus."""
    shards: Annotated[int, Field(ge=1, le=6541)] | None = None
    """Of climbmix, for training; as many as the profile suggests when absent."""
    profile: Literal["cpu", "small", "h100"] = "cpu"
    dataset: Path | None = None
    """Folder of a dataset that prepare.py has made, in place of the four above."""

    @model_validator(mode="after")
    def one_source(self) -> "Data":
        if self.dataset is not None and self.model_fields_set != {"dataset"}:
            raise ValueError("dataset stands in place of corpus, paths, shards and profile: give one or the other")
        if self.dataset is None and (self.corpus == "local") != bool(self.paths):
            raise ValueError("paths belong to the corpus 'local', and it needs at least one")
        if self.shards is not None and self.corpus != "climbmix":
            raise ValueError("shards belong to the corpus 'climbmix'")
        return self


class Budget(Section):
    train_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """Seconds of training of each experiment; the dataset's own budget when absent."""
    experiments: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Judged experiments after which the campaign ends; the baseline comes on top."""
    device_minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes that experiments may spend on the device, start-up and scoring included."""
    wall_minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes from launch (or resume) until the org drains."""
    queue_depth: Annotated[int, Field(ge=1, le=64)] = 2
    """Ideas that may wait for the device."""


class SandboxSettings(Section):
    engine: Literal["auto", "docker", "runc"] = "auto"
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, or the UUID of a GPU."""
    image: Annotated[str, Field(min_length=1)] | None = None
    """Docker image to use in place of the host's own Python, such as one made from docker/Dockerfile."""
    runtime: Annotated[str, Field(min_length=1)] | None = None
    """One of the Docker daemon's runtimes, such as runsc (gVisor); its default when absent."""
    strict: bool = False
    """Refuse container programs for whose version a way out has been published, instead of a warning by `doctor`."""
    cpus: Annotated[float, Field(gt=0)] | None = None
    """CPUs of a candidate; all of the machine's when absent."""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory of a candidate, swap included; the sandbox's default when absent."""

    stolen_cpu: Annotated[float, Field(gt=0, le=1)] = STOLEN_CPU
    """Share of its CPU time that others may take from a run on the CPU before it is void and repeated; 1 lets everything pass."""

    def limits(self) -> SandboxLimits:
        return SandboxLimits.of(cpus=self.cpus, memory_gb=self.memory_gb, stolen_cpu=self.stolen_cpu)

    def ready_engine(self, device: Device, state_dir: Path) -> Engine:
        """See sandbox.ready."""
        return ready_engine(
            self.engine, device, state_dir=state_dir, image=self.image, runtime=self.runtime, strict=self.strict
        )


class AuditSettings(Section):
    """How strictly claims are audited; see sandbox/score.py for what each value means."""

    tolerance_nats: Annotated[float, Field(gt=0, le=2)] = Rigour.tolerance_nats
    lie_bpb: Annotated[float, Field(gt=0, le=1)] = Rigour.lie_bpb
    power: Annotated[float, Field(gt=0, lt=1)] = Rigour.power
    screen_cuts: Annotated[int, Field(ge=2)] | None = Rigour.screen_cuts

    def rigour(self) -> Rigour:
        return Rigour(**self.model_dump())


class Merge(Section):
    """When a candidate merges, and what that promises: docs/statistics.md. Fixed when the campaign begins."""

    rule: Literal["two-run-min", "group-sequential", "e-process", "keep-if-lower"] = "two-run-min"
    parameters: dict[str, float | list[float]] = {}
    """Of the rule, in place of its own."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = Policy.model_fields["alpha"].default
    """Chance of any false merge in the campaign, at most."""
    judgements: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Verdicts that this is promised for; as many as `budget.experiments` when absent."""
    noise_runs: Annotated[int, Field(ge=4, le=64)] = Policy.model_fields["noise_runs"].default
    """Runs of the start, from which the noise is estimated."""
    champion_runs: Annotated[int, Field(ge=1, le=64)] = Policy.model_fields["champion_runs"].default
    """What a champion is topped up to before a candidate's second run is judged."""
    canary_every: Annotated[int, Field(ge=1)] = Policy.model_fields["canary_every"].default
    """Verdicts after which the champion is run again: has the machine changed?"""
    simplify_margin: Annotated[float, Field(ge=0, le=100)] = Policy.model_fields["simplify_margin"].default
    """What a simplification may lose, in σ̂."""
    simplify_cap: Annotated[float, Field(ge=0, le=1000)] = Policy.model_fields["simplify_cap"].default
    """What all simplifications together may lose, in σ̂."""

    @model_validator(mode="after")
    def known_parameters(self) -> "Merge":
        try:
            make_rule(self.rule, self.parameters)
        except BadInput as error:
            raise ValueError(str(error)) from None
        return self


class Money(Section):
    """What language models may cost, in US dollars. Set aside before each call, so that no limit is ever exceeded: docs/minds.md."""

    campaign_usd: Annotated[float, Field(ge=0, le=1_000_000)] = 20.0
    """All calls of a campaign."""
    experiment_usd: Annotated[float, Field(ge=0, le=1_000_000)] = 2.0
    """All calls about one experiment, and its share of the planner's."""
    call_usd: Annotated[float, Field(ge=0, le=1_000_000)] = 1.5
    """What one call could cost at most: its whole prompt anew, and an answer of `max_tokens`."""
    prices: Path | None = None
    """Prices of models that agents/prices.toml does not have, or has no longer right; relative to the lab."""

    def limits(self) -> Limits:
        return Limits(to_micro(self.campaign_usd), to_micro(self.experiment_usd))


def to_micro(dollars: float) -> int:
    return round(dollars * MILLION)


class EarlyStopping(Section):
    """When to end a run that cannot come to anything; see orgs/hopeless.py."""

    enabled: bool = False
    after: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the budget before which no run is ended."""
    margin: Annotated[float, Field(ge=1)] = 6.0
    """Spreads of the champion's runs that a loss must lie above the highest of them."""
    control: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of those runs that are allowed to finish all the same, so that it shows how many were worth it."""


class UpkeepSettings(Section):
    """What an idle device is given to measure; see agents/upkeep.py."""

    combine: bool = True
    """Near misses together."""
    leave_one_out: bool = True
    """The champion without one of its changes."""


class HeadlineSettings(Section):
    """Champion against start once the campaign is over: fresh seeds, the sealed test split."""

    runs: Annotated[int, Field(ge=0, le=64)] = 4
    """Of each, after the last experiment: 4 take the time of 8 experiments. With 0 the campaign ends with its counts alone."""


class OrgFile(Section):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    """Lower-case letters, digits and dashes; campaigns and branches are named after it."""
    program: Path = Path("program.md")
    seed: int = 0
    """Seed of the org's own choices. The seeds of training runs are drawn by the host."""
    data: Data = Data()
    roles: Roles = Roles()
    budget: Budget = Budget()
    sandbox: SandboxSettings = SandboxSettings()
    audit: AuditSettings = AuditSettings()
    merge: Merge = Merge()
    money: Money = Money()
    early_stop: EarlyStopping = EarlyStopping()
    upkeep: UpkeepSettings = UpkeepSettings()
    headline: HeadlineSettings = HeadlineSettings()

    @classmethod
    def load(cls, path: Path, lab: Path) -> "OrgFile":
        """Read and check an org file.

        Args:
            path: the TOML file.
            lab: folder that the paths in the file are relative to.

        Raises:
            BadInput: one line naming the file, the key and what is allowed.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            presets = ", ".join(sorted(str(p.relative_to(lab)) for p in (lab / "orgs").glob("*.toml"))) or "none here"
            raise BadInput(f"{path}: no such org file (in this lab: {presets})") from None
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: cannot be read: {error}") from None
        except tomllib.TOMLDecodeError as error:
            raise BadInput(f"{path}: not TOML: {error}") from None
        try:
            org = cls.model_validate(values)
        except ValidationError as error:
            raise BadInput(f"{path}: {explain(error)}") from None
        for key, file in [
            ("program", org.program),
            *((f"roles.{name}.file", seat.file) for name, seat in org.roles.items()),
            *([("money.prices", org.money.prices)] if org.money.prices is not None else []),
        ]:
            if not (lab / file).is_file():
                raise BadInput(f"{path}: {key}: no file {file} in {lab}")
        return org

    def prices(self, lab: Path) -> Prices:
        """What models cost. Raises BadInput."""
        return Prices.load(None if self.money.prices is None else lab / self.money.prices)

    def keys(self, lab: Path) -> dict[str, str]:
        """API keys of this process' environment that its roles need, by variable."""
        settings = (seat.role_file(lab).load().settings(SETTINGS[name]) for name, seat in self.roles.items())
        names = {found.key for found in settings if found.mind in LANGUAGE and found.key_file is None}
        return {name: os.environ[name] for name in names if name in os.environ}

    def goes_on_for_nothing(self, lab: Path) -> bool:
        """Whether its planner has ideas, too, when the money is spent."""
        return self.roles.planner.role_file(lab).load().settings(PlannerSettings).mind == "hybrid"

    def policy(self) -> Policy:
        """What a campaign of this org promises."""
        judgements = self.merge.judgements or self.budget.experiments
        return Policy(**self.merge.model_dump(exclude={"judgements"}), judgements=judgements)

    def identity(self, lab: Path) -> str:
        """Hash of everything that makes this org what it is: the file's values, its roles, what they replay, and its program."""
        digest = hashlib.sha256(self.model_dump_json().encode())
        settings = [seat.role_file(lab).load().settings(SETTINGS[name]) for name, seat in self.roles.items()]
        scripts = [found.script for found in settings if found.script is not None]
        for file in [self.program, *(seat.file for _, seat in self.roles.items()), *scripts]:
            digest.update(hashlib.sha256((lab / file).read_bytes()).digest())
        return digest.hexdigest()


def explain(error: ValidationError) -> str:
    """The first complaint of a validation as `key: what is wrong (what is allowed)`, counting the others."""
    first, *others = error.errors(include_url=False)
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        message = f"unknown key (allowed here: {', '.join(allowed_keys(OrgFile, first['loc'][:-1]))})"
    elif first["type"] == "missing":
        message = "is required"
    elif first["type"] == "value_error":
        message = str(first["ctx"]["error"])
    else:
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}"
    return f"{key}: {message}" + (f" (and {len(others)} more)" if others else "")


def allowed_keys(model: type[BaseModel], where: tuple[int | str, ...]) -> list[str]:
    """Keys that the section at `where` may hold."""
    for part in where:
        annotation = model.model_fields[str(part)].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    return sorted(model.model_fields)
