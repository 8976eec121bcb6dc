"""Makes sure that the dataset of a campaign is there and is what its manifest says."""

import subprocess
import sys

from rich.console import Console
from rich.text import Text

from orgs.lab import Lab
from orgs.orgfile import Data
from records import BadInput, HostFault, MissingComponent, Refusal
from sandbox.dataset import Dataset


def ensure_dataset(lab: Lab, data: Data, console: Console) -> Dataset:
    """Open the verified dataset that an org file names; build it first where it does not exist.

    Raises:
        BadInput: the corpus is unusable, or the files do not match their manifest.
        MissingComponent: the org file names a prepared dataset, and it is not there; or a download, and no network.
        HostFault: the machine failed while building (disk full).
    """
    directory = lab.dataset(data)
    if data.dataset is None and not (directory / "manifest.json").is_file():
        console.print(Text(f"preparing dataset {directory.name} (once)"))
        corpus = [data.corpus, *(str(path.expanduser()) for path in data.paths)]
        options = ["--profile", data.profile, "--out", str(directory)]
        if data.shards is not None:
            options += ["--shards", str(data.shards)]
        command = [sys.executable, "prepare.py", "--corpus", *corpus, *options]
        prepared = subprocess.run(command, cwd=lab.root, stdout=sys.stderr, check=False)
        if prepared.returncode != 0:
            faults: dict[int, type[Refusal]] = {fault.exit_code: fault for fault in (MissingComponent, HostFault)}
            raise faults.get(prepared.returncode, BadInput)(
                f"prepare.py did not make {directory.name}; its line above says why"
            )
    return Dataset.open(directory)
