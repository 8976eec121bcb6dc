"""A git repository such as a user has: commits, a staged change, an unstaged one, an untracked file."""

import hashlib
import subprocess
from pathlib import Path

START = "LR = 1.0\n"


class Repository:
    def __init__(self, root: Path):
        self.root = root
        root.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main")
        (root / "train.py").write_text(START)
        (root / "README.md").write_text("read me\n")
        (root / "roles").mkdir()
        (root / "roles" / "planner.md").write_text("plan\n")
        (root / "setup.sh").write_text("#!/bin/sh\n")
        (root / "setup.sh").chmod(0o755)
        self.commit("start")

    @classmethod
    def at(cls, root: Path) -> "Repository":
        """One that is there already."""
        found = cls.__new__(cls)
        found.root = root
        return found

    def git(self, *arguments: str) -> str:
        """Output of a git command, as the user would run it."""
        identity = ["-c", "user.name=user", "-c", "user.email=user@localhost"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=self.root, capture_output=True, text=True, check=True
        ).stdout.rstrip("\n")

    def commit(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "--quiet", "-m", message)
        return self.git("rev-parse", "HEAD")

    def commit_on(self, branch: str, source: str) -> str:
        """Somebody else's commit on a branch that is not checked out."""
        blob = self.root.parent / "blob"
        blob.write_text(source)
        entry = f"100644 blob {self.git('hash-object', '-w', str(blob))}\ttrain.py"
        tree = subprocess.run(
            ["git", "mktree"], cwd=self.root, input=entry, capture_output=True, text=True, check=True
        ).stdout.strip()
        commit = self.git("commit-tree", tree, "-p", branch, "-m", "by hand")
        self.git("update-ref", f"refs/heads/{branch}", commit)
        return commit

    def make_a_mess(self) -> None:
        """Leave work unfinished: staged, unstaged and untracked."""
        (self.root / "README.md").write_text("staged\n")
        self.git("add", "README.md")
        (self.root / "README.md").write_text("unstaged\n")
        (self.root / "notes.txt").write_text("untracked\n")

    def fingerprint(self) -> dict[str, str]:
        """Hash of every file of the working tree, and of index and HEAD, byte for byte."""
        files = [p for p in self.root.rglob("*") if p.is_file() and ".git" not in p.relative_to(self.root).parts]
        files += [self.root / ".git" / name for name in ("index", "HEAD")]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
