"""The lab: the clone in which a person works, and where its state lies."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from orgs.orgfile import Data
from records import BadInput, MissingComponent


@dataclass(frozen=True)
class Lab:
    """A folder with train.py, program.md, roles/ and orgs/; everything that runs leave behind is in .autoresearch/."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> "Lab":
        """Raises BadInput when `root` is no lab."""
        root = root.resolve()
        missing = [name for name in ("train.py", "prepare.py") if not (root / name).is_file()]
        if missing:
            raise BadInput(f"{root} has no {' and no '.join(missing)}: run this in a clone of autoresearch-org")
        return cls(root)

    @property
    def state(self) -> Path:
        return self.root / ".autoresearch"

    def transcripts(self, campaign: str) -> Path:
        """Folder of what language models and agents were asked and answered."""
        return self.state / "transcripts" / campaign

    @property
    def train_source(self) -> str:
        """train.py of the working copy."""
        try:
            return (self.root / "train.py").read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"train.py is not UTF-8: {error}") from None

    def dataset(self, data: Data) -> Path:
        """Folder of the dataset that an org file names; another set of paths or shards is another dataset."""
        if data.dataset is not None:
            return self.root / data.dataset.expanduser()
        name = f"{data.corpus}-{data.profile}"
        if data.shards is not None:
            name += f"-{data.shards}"
        if data.paths:
            paths = "\n".join(str(self.root / path.expanduser()) for path in data.paths)
            name += "-" + hashlib.sha256(paths.encode()).hexdigest()[:8]
        return self.state / "datasets" / name

    def dataset_of_profile(self, profile: str) -> Path:
        """The one prepared dataset of a profile.

        Raises:
            MissingComponent: none is prepared.
            BadInput: several are, so that the choice must be the user's.
        """
        found = sorted(self.state.glob(f"datasets/*-{profile}*/manifest.json"))
        if not found:
            raise MissingComponent(
                f"no dataset of profile {profile}: run .venv/bin/python prepare.py --profile {profile}"
            )
        if len(found) > 1:
            names = ", ".join(str(manifest.parent.relative_to(self.root)) for manifest in found)
            raise BadInput(f"several datasets of profile {profile}: pick one with --dataset ({names})")
        return found[0].parent
