"""Role files: how a planner, a coder or a reviewer thinks, in Markdown that a person edits.

A role file is YAML front matter between two `---` lines (agents/settings.py says what may stand there), then a Jinja
prompt. It is read anew for every task, so an edit takes effect at the next one. The prompt may use the variables of its
task and three filters: `fenced(limit)` shows untrusted text as data, `quoted(limit)` does so within a line, and
`one_line(limit)` only puts it on one line. A line `<!-- task -->` parts it in two: what is above stays the same from task to task, and a
language model's API keeps it.
"""

import hashlib
import json
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import ValidationError

from agents.fence import fenced, one_line, quoted
from agents.minds import load_mind
from agents.minds.desk import Desk
from agents.prompt import Prompt
from agents.samples import SAMPLES
from agents.settings import LANGUAGE, SETTINGS, Settings
from records import BadInput

S = TypeVar("S", bound=Settings)

# Sandboxed because people share role files: a prompt may read its variables and nothing else of this process.
JINJA = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
)
JINJA.filters.update(fenced=fenced, quoted=quoted, one_line=one_line)
TASK = re.compile(r"^<!-- task -->[ \t]*\n", re.MULTILINE)


@dataclass(frozen=True)
class Role:
    """A role file as it was at one moment."""

    path: Path
    sha256: str
    """Hash of the file's bytes, and of the settings in place of its own; on every row that was made under it."""
    front: str
    """YAML text; starts on line 2 of the file."""
    body: str
    """Jinja text."""
    body_line: int
    """Line of the file on which the body starts."""
    instead: Mapping[str, object] | None = None
    """Settings of an org file, in place of the front matter."""

    @classmethod
    def load(cls, path: Path, instead: Mapping[str, object] | None = None) -> "Role":
        """Read a role file.

        Args:
            path: the file.
            instead: settings in place of its front matter.

        Raises:
            BadInput: no such file, no front matter, or a prompt that is no Jinja; names file and line.
        """
        try:
            data = path.read_bytes()
            text = data.decode().replace("\r\n", "\n")
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror}); every role needs its file") from None
        except UnicodeDecodeError:
            raise BadInput(f"{path}: is not UTF-8 text; save it as UTF-8") from None
        opening, _, rest = text.partition("---\n")
        front, closing, body = rest.partition("\n---\n")
        if opening or not closing:
            raise BadInput(f"{path}:1: must start with front matter: a line `---`, then `mind: sampler`, then `---`")
        sha256 = hashlib.sha256(data + (b"" if instead is None else json.dumps(instead, sort_keys=True).encode()))
        role = cls(path, sha256.hexdigest(), front, body, front.count("\n") + 4, instead)
        role.syntax()
        return role

    def settings(self, model: type[S]) -> S:
        """The front matter as a model. Raises BadInput naming file, line, key and what is allowed."""
        lines: dict[str, int] = {}
        if self.instead is not None:
            return self.instead_of_front(model, self.instead)
        try:
            values: object = yaml.safe_load(self.front)
            for key, line in top_level_keys(self.front):
                if key in lines:
                    raise BadInput(f"{self.path}:{line + 2}: {key} is set twice; keep one")
                lines[key] = line
            return model.model_validate({} if values is None else values)
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0]) if first["loc"] else ""
            named = ".".join(str(part) for part in first["loc"]) or "front matter"
            what = explain(model, key, first["type"], first["msg"])
            raise BadInput(f"{self.path}:{lines.get(key, 0) + 2}: {named}: {what}") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line if error.problem_mark else 0
            raise BadInput(f"{self.path}:{line + 2}: front matter is not YAML: {error.problem}") from None
        except (yaml.YAMLError, ValueError) as error:
            raise BadInput(f"{self.path}:2: front matter is not YAML: {one_line(str(error))}") from None

    def instead_of_front(self, model: type[S], values: Mapping[str, object]) -> S:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0]) if first["loc"] else ""
            named = "settings" + "".join(f".{part}" for part in first["loc"])
            what = explain(model, key, first["type"], first["msg"])
            raise BadInput(f"{named} of the org file, in place of those in {self.path}: {what}") from None

    def render(self, variables: Mapping[str, object]) -> Prompt:
        """The prompt for one task.

        Raises:
            BadInput: an unknown variable or a failing expression; names file, line and the variables there are.
        """
        *stable, (task, line) = self.parts()
        return Prompt(
            "".join(self.render_part(*part, variables) for part in stable), self.render_part(task, line, variables)
        )

    def parts(self) -> list[tuple[str, int]]:
        """Jinja text of what is above and below `<!-- task -->`, or of all where nothing parts it, with the line it starts on."""
        mark = TASK.search(self.body)
        if mark is None:
            return [(self.body, self.body_line)]
        below = self.body_line + self.body.count("\n", 0, mark.end())
        return [(self.body[: mark.start()], self.body_line), (self.body[mark.end() :], below)]

    def render_part(self, text: str, first_line: int, variables: Mapping[str, object]) -> str:
        allowed = ", ".join(sorted(variables))
        tree = self.parse(text, first_line)
        if unknown := meta.find_undeclared_variables(tree) - variables.keys():
            name = min(unknown)
            line = next((node.lineno for node in tree.find_all(nodes.Name) if node.name == name), 1)
            raise BadInput(f"{self.at(first_line, line)}: unknown variable {name!r}; this role may use: {allowed}")
        try:
            return JINJA.from_string(text).render(variables)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            at, message = self.at(first_line, template_line(error)), one_line(str(error))
            raise BadInput(f"{at}: {message}; this role may use: {allowed}") from None

    def check(self, name: str, desk: Desk) -> None:
        """Read the settings, load the mind and render the prompt for a made-up task, so that a broken role stops before any compute.

        Args:
            name: which role this is to play: `planner`, `coder` or `reviewer`.
            desk: what a mind needs that costs money.

        Raises:
            BadInput: as settings(), render() and load_mind(); a model without a price.
            NoKey: that is all that is missing.
        """
        if name not in SETTINGS:
            raise BadInput(f"{self.path}: no role is called {name!r}; there are: {', '.join(SETTINGS)}")
        settings = self.settings(SETTINGS[name])
        mind = load_mind(settings, desk)
        for variables in SAMPLES[name]:
            prompt = self.render(variables)
            if settings.mind in LANGUAGE and not prompt.stable.strip():
                raise BadInput(
                    f"{self.path}: a line `<!-- task -->` is missing: put above it what is the same for every task (program, contract, "
                    "champion), which the API then keeps, and below it what is not"
                )
        mind.ready(settings)

    def syntax(self) -> None:
        """Raises BadInput for a prompt that is no Jinja."""
        for text, first_line in self.parts():
            self.parse(text, first_line)

    def parse(self, text: str, first_line: int) -> nodes.Template:
        """Raises BadInput."""
        try:
            return JINJA.parse(text)
        except TemplateSyntaxError as error:
            raise BadInput(f"{self.at(first_line, error.lineno)}: the prompt is not Jinja: {error.message}") from None

    def at(self, first_line: int, line: int) -> str:
        """`file:line` for a 1-based line of a part."""
        return f"{self.path}:{first_line + line - 1}"


@dataclass(frozen=True)
class RoleFile:
    """Where a role file is, and what stands in place of its front matter: it is read anew for every task."""

    path: Path
    instead: Mapping[str, object] | None = None

    def load(self) -> Role:
        """Raises BadInput, as Role.load."""
        return Role.load(self.path, self.instead)


def top_level_keys(front: str) -> Iterator[tuple[str, int]]:
    """Each key of a YAML mapping with its 0-based line."""
    root = yaml.compose(front, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        for key, _ in root.value:
            yield str(key.value), key.start_mark.line


def explain(model: type[Settings], key: str, kind: str, message: str) -> str:
    """A pydantic complaint in words that say what is allowed."""
    if kind == "extra_forbidden" and key not in model.model_fields:
        names = sorted(model.model_fields, key=lambda name: name != "mind")
        return f"unknown setting; this role may have: {', '.join(names)}"
    if kind == "missing":
        return (
            f"is missing; write `{key}: sampler`, or `{key}: anthropic` with a `model:`"
            if key == "mind"
            else "is missing"
        )
    return message[:1].lower() + message[1:]


def template_line(error: Exception) -> int:
    """1-based line of the prompt at which rendering failed: Jinja puts it into the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 1 for frame in reversed(frames) if frame.filename == "<template>"), 1)
