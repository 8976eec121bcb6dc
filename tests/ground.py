"""What the tests of prepare.py and train.py share: a text to learn from, and the scripts run or imported from a folder."""

import importlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SCRIPTS = ("prepare", "train")
WORDS = [
    "the",
    "quiet",
    "river",
    "løber",
    "über",
    "山",
    "川海",
    "🙂",
    "🌍",
    "naïve",
    "ковёр",
    "stone",
    "under",
    "lamps",
]


def story(marker: str, lines: int = 6, changed: int | None = None) -> str:
    """Lines that all hold the marker between two `#`; a variant has one line changed."""
    text = [random.Random(f"{marker} {line}").choices(WORDS, k=8) for line in range(lines)]
    if changed is not None:
        text[changed] = random.Random(f"{marker} changed {changed}").choices(WORDS, k=8)
    return "\n".join(" ".join([*words[:4], f"#{marker}#", *words[4:]]) for words in text)


def write_stories(folder: Path, families: int = 150, variants: int = 3) -> Path:
    """One file per variant of a story."""
    folder.mkdir(parents=True)
    for family in range(families):
        for variant in range(variants):
            (folder / f"{variant}-{family:03}.txt").write_text(story(f"{family:03}", changed=variant), "utf-8")
    return folder


def python(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the interpreter of the tests in a folder, without a GPU, and leave no bytecode there."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AUTORESEARCH_")}
    variables |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120)


def copy_scripts(folder: Path, **edits: str) -> Path:
    """prepare.py and train.py, the latter with constants set: NAME="value" replaces what follows `NAME = `."""
    for name in SCRIPTS:
        shutil.copy(ROOT / f"{name}.py", folder)
    lines = (folder / "train.py").read_text().splitlines(keepends=True)
    for name, value in edits.items():
        (at,) = [i for i, line in enumerate(lines) if line.startswith(f"{name} = ")]
        lines[at] = f"{name} = {value}\n"
    (folder / "train.py").write_text("".join(lines))
    return folder


def configure(folder: Path, profile: dict[str, Any], seed: int = 5, device: str = "cpu") -> Path:
    """Put the sandbox' config.json beside the scripts: with it they need no dataset to be imported."""
    settings = {"max_seq_len": profile["max_seq_len"], "vocab_size": profile["vocab_size"], "budget_s": 60.0}
    (folder / "config.json").write_text(json.dumps({**settings, "device": device, "seed": seed, "profile": profile}))
    return folder


def load(folder: Path, name: str) -> Any:
    """Import a script's copy, with the prepare.py beside it, without a trace in the modules of other tests."""
    others = {script: sys.modules.pop(script) for script in SCRIPTS if script in sys.modules}
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        for script in SCRIPTS:
            sys.modules.pop(script, None)
        sys.modules.update(others)
