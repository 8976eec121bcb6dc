"""Role files: how a planner, a coder or a reviewer thinks, in Markdown that a person edits.

A role file is YAML front matter between two `---` lines (agents/settings.py says what may stand there), then a Jinja
prompt. It is read anew for every task, so an edit takes effect at the next one. The prompt may use the variables of its
task and two filters: `fenced(limit)` shows untrusted text as data, `one_line(limit)` puts it on one line.
"""

import hashlib
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import ValidationError

from agents.fence import fenced, one_line
from agents.minds import load_mind
from agents.samples import SAMPLES
from agents.settings import SETTINGS, Settings
from records import BadInput

S = TypeVar("S", bound=Settings)

# Sandboxed because people share role files: a prompt may read its variables and nothing else of this process.
JINJA = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
)
JINJA.filters.update(fenced=fenced, one_line=one_line)


@dataclass(frozen=True)
class Role:
    """A role file as it was at one moment."""

    path: Path
    sha256: str
    """Hash of the file's bytes; on every row that was made under it."""
    front: str
    """YAML text; starts on line 2 of the file."""
    body: str
    """Jinja text."""
    body_line: int
    """Line of the file on which the body starts."""

    @classmethod
    def load(cls, path: Path) -> "Role":
        """Read a role file.

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
        role = cls(path, hashlib.sha256(data).hexdigest(), front, body, front.count("\n") + 4)
        role.syntax()
        return role

    def settings(self, model: type[S]) -> S:
        """The front matter as a model. Raises BadInput naming file, line, key and what is allowed."""
        lines: dict[str, int] = {}
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

    def render(self, variables: Mapping[str, object]) -> str:
        """The prompt for one task.

        Raises:
            BadInput: an unknown variable or a failing expression; names file, line and the variables there are.
        """
        allowed = ", ".join(sorted(variables))
        tree = self.syntax()
        if unknown := meta.find_undeclared_variables(tree) - variables.keys():
            name = min(unknown)
            line = next((node.lineno for node in tree.find_all(nodes.Name) if node.name == name), 1)
            raise BadInput(f"{self.at(line)}: unknown variable {name!r}; this role may use: {allowed}")
        try:
            return JINJA.from_string(self.body).render(variables)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            message = one_line(str(error))
            raise BadInput(f"{self.at(template_line(error))}: {message}; this role may use: {allowed}") from None

    def check(self, name: str, lab: Path) -> None:
        """Read the settings, load the mind and render the prompt for a made-up task, so that a broken role stops before any compute.

        Args:
            name: which role this is to play: `planner`, `coder` or `reviewer`.
            lab: folder that the role file's paths are relative to.

        Raises:
            BadInput: as settings(), render() and load_mind().
        """
        if name not in SETTINGS:
            raise BadInput(f"{self.path}: no role is called {name!r}; there are: {', '.join(SETTINGS)}")
        load_mind(self.settings(SETTINGS[name]), lab)
        for variables in SAMPLES[name]:
            self.render(variables)

    def syntax(self) -> nodes.Template:
        """The prompt's syntax tree. Raises BadInput."""
        try:
            return JINJA.parse(self.body)
        except TemplateSyntaxError as error:
            raise BadInput(f"{self.at(error.lineno)}: the prompt is not Jinja: {error.message}") from None

    def at(self, line: int) -> str:
        """`file:line` for a 1-based line of the body."""
        return f"{self.path}:{self.body_line + line - 1}"


def top_level_keys(front: str) -> Iterator[tuple[str, int]]:
    """Each key of a YAML mapping with its 0-based line."""
    root = yaml.compose(front, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        for key, _ in root.value:
            yield str(key.value), key.start_mark.line


def explain(model: type[Settings], key: str, kind: str, message: str) -> str:
    """A pydantic complaint in words that say what is allowed."""
    if kind == "extra_forbidden" and key not in model.model_fields:
        return f"unknown setting; this role may have: {', '.join(model.model_fields)}"
    if kind == "missing":
        return f"is missing; write `{key}: sampler`" if key == "mind" else "is missing"
    return message[:1].lower() + message[1:]


def template_line(error: Exception) -> int:
    """1-based line of the prompt at which rendering failed: Jinja puts it into the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 1 for frame in reversed(frames) if frame.filename == "<template>"), 1)
