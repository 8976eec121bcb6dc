"""The champion: the train.py at the tip of `autoresearch/<campaign>`.

Plumbing only (objects and one ref), so that the user's working tree, index and HEAD are never touched, and no hook,
filter, signature or identity of theirs has a say in what lands.
"""

import hashlib
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import failpoint
from records import BadInput, HostFault, MissingComponent

AUTHOR = "autoresearch-org"
EMAIL = "autoresearch-org@localhost"
FILE = "train.py"
HEADER = "autoresearch-record"
"""Header of our commits, beside git's own: one line of JSON (ledger/witness.py) that `git log` does not show and that is fetched,
pushed and bundled with the commit, whose id covers it."""
SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsync=all",
    "core.fsyncMethod=fsync",
    "core.useReplaceRefs=false",
    "i18n.commitEncoding=UTF-8",
    "gc.auto=0",
)
LOCK_PATIENCE_S = 60.0
"""A lock on the branch that is older belongs to nobody."""


class Done(NamedTuple):
    """How a git command ended."""

    code: int
    output: bytes
    error: str
    """Its last line, for people."""


class Commit(NamedTuple):
    """One commit of the branch."""

    id: str
    parents: list[str]
    trailers: dict[str, str]


class Champion:
    """The branch of one campaign.

    Args:
        repository: the clone's root.
        campaign: name of the campaign.

    Raises:
        MissingComponent: git, or a repository, is missing or not to be trusted; says what to run.
        BadInput: no branch can have this name, or the branch is checked out.
    """

    def __init__(self, repository: Path, campaign: str):
        self.repository = repository.resolve()
        self.campaign = campaign
        self.branch = f"autoresearch/{campaign}"
        self.ref = f"refs/heads/{self.branch}"
        self.refuse_foreign_folder()
        if self.git("check-ref-format", self.ref).code:
            raise BadInput(f"campaign {campaign!r}: git allows no branch of this name")
        self.refuse_checkout()

    def refuse_foreign_folder(self) -> None:
        """Raise MissingComponent unless this folder is the root of a repository that git lets us use."""
        found = self.git("rev-parse", "--show-toplevel")
        if "dubious ownership" in found.error:
            raise MissingComponent(
                f"git does not trust {self.repository}, which another user owns: git config --global --add safe.directory {self.repository}"
            )
        if found.code or Path(os.fsdecode(found.output.strip())).resolve() != self.repository:
            raise MissingComponent(
                f"{self.repository} is not the root of a git repository: run `git init && git add -A && git commit -m start` in it"
            )

    def refuse_checkout(self) -> None:
        """Raise BadInput if a worktree stands on the branch: each merge would make its files look changed."""
        # Without -z, which git has only since 2.36.
        worktrees = self.must("worktree", "list", "--porcelain").decode(errors="replace").split("\n\n")
        for worktree in worktrees:
            lines = worktree.splitlines()
            if f"branch {self.ref}" in lines:
                path = lines[0].removeprefix("worktree ")
                raise BadInput(
                    f"{path} has {self.branch} checked out and merges would pull it from under you: git -C {path} switch --detach"
                )

    # ---- reading -----------------------------------------------------------------------------------------------------

    def head(self) -> str:
        """Commit at the tip. Raises MissingComponent if there is no branch."""
        commit = self.resolve(self.ref)
        if commit is None:
            raise MissingComponent(f"no branch {self.branch}: launch the campaign first")
        return commit

    def resolve(self, name: str) -> str | None:
        found = self.git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return None if found.code else found.output.decode().strip()

    def contains(self, commit: str) -> bool:
        """Whether the tip is this commit or comes after it."""
        return self.git("merge-base", "--is-ancestor", commit, self.ref).code == 0

    def since(self, base: str) -> list[Commit]:
        """Commits of the branch that came after `base`, oldest first. Raises MissingComponent if there is no branch."""
        format = "--format=%H%x1f%P%x1f%(trailers:only,unfold)%x1e"
        listed = self.must("log", "--reverse", "--topo-order", format, f"{base}..{self.head()}").decode(
            errors="replace"
        )
        commits: list[Commit] = []
        for entry in listed.split("\x1e"):
            if entry.strip():
                id, parents, trailers = entry.strip("\n").split("\x1f")
                pairs = (line.partition(": ") for line in trailers.splitlines() if ": " in line)
                commits.append(Commit(id, parents.split(), {key: value for key, _, value in pairs}))
        return commits

    def source(self, commit: str) -> str:
        """train.py of a commit. Raises MissingComponent if it has none, BadInput if it is not UTF-8."""
        try:
            return self.source_bytes(commit).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"{FILE} of {commit[:10]} is not UTF-8: {error}") from None

    def source_bytes(self, commit: str) -> bytes:
        found = self.git("cat-file", "blob", f"{commit}:{FILE}")
        if found.code:
            raise MissingComponent(f"commit {commit[:10]} has no {FILE}: add it and commit")
        return found.output

    def landed_source_sha256(self, commit: str) -> str:
        """Hash of the exact bytes of a commit's train.py."""
        return hashlib.sha256(self.source_bytes(commit)).hexdigest()

    def record(self, commit: str) -> str | None:
        """What we wrote into a commit's header; None for one that somebody else made."""
        headers = self.must("cat-file", "commit", commit).partition(b"\n\n")[0]
        found = (line for line in headers.split(b"\n") if line.startswith(HEADER.encode() + b" "))
        return next((line.partition(b" ")[2].decode("ascii", errors="replace") for line in found), None)

    def beginning(self) -> str | None:
        """The commit that the campaign began with, if it carries a record of it."""
        name = self.campaign.replace(".", r"\.")
        # The first that names the campaign: every merge does, and the start comes before them.
        options = ("--first-parent", "--reverse", f"--grep=^Campaign: {name}$", "--format=%H")
        commits = self.must("log", *options, self.head()).decode().split()
        return commits[0] if commits and self.record(commits[0]) is not None else None

    def mismatch(self, parent: str, commit: str, source_sha256: str) -> str | None:
        """Why a commit is not its one parent's tree with the train.py of this hash in it; None when it is."""
        if self.resolve(commit) is None:
            return f"{commit[:10]} is not in this repository"
        if self.must("rev-list", "--no-walk", "--parents", commit).decode().split() != [commit, parent]:
            return f"{commit[:10]} is not a commit above {parent[:10]}"
        changed = self.must("diff-tree", "-r", "-z", "--no-renames", "--name-only", parent, commit)
        if not set(filter(None, changed.split(b"\0"))) <= {FILE.encode()}:
            return f"{commit[:10]} changes more than {FILE}"
        if self.landed_source_sha256(commit) != source_sha256:
            return f"{FILE} of {commit[:10]} is another one"
        return None

    # ---- writing -----------------------------------------------------------------------------------------------------

    def start(self, source: str, record: str = "") -> str:
        """Make the branch if there is none: one commit above HEAD, or at HEAD if its train.py is `source` and nothing is recorded.

        Args:
            source: train.py to begin with.
            record: of the campaign, one line of JSON in ASCII.

        Returns:
            Its tip. Raises BadInput if the repository has no commit.
        """
        if (existing := self.resolve(self.ref)) is not None:
            return existing
        base = self.resolve("HEAD")
        if base is None:
            raise BadInput(f"{self.repository} has no commit: run `git add -A && git commit -m start` in it")
        if record or self.git("cat-file", "blob", f"{base}:{FILE}").output != source.encode():
            text = f"start of {self.branch}\n\n{FILE} as it was in the working copy.\n\nCampaign: {self.campaign}\n"
            base = self.prepare(base, source, text, record)
        self.swap("", base)
        return self.head()

    def prepare(self, parent: str, source: str, message: str, record: str = "") -> str:
        """A commit above `parent` whose tree differs in nothing but train.py, on no branch yet. Returns it."""
        blob = self.must("hash-object", "-w", "-t", "blob", "--stdin", given=source.encode()).decode().strip()
        failpoint.reach("git.blob_written")
        tree = self.must("mktree", "-z", "--missing", given=self.tree_with(parent, blob)).decode().strip()
        failpoint.reach("git.tree_written")
        by = f"{AUTHOR} <{EMAIL}> {int(time.time())} +0000"
        headers = [f"tree {tree}", f"parent {parent}", f"author {by}", f"committer {by}"]
        headers += [f"{HEADER} {record}"] if record else []
        text = "\n".join([*headers, "", message.replace("\0", "")]).encode()
        commit = self.must("hash-object", "-w", "-t", "commit", "--stdin", given=text).decode().strip()
        failpoint.reach("git.commit_written")
        return commit

    def tree_with(self, parent: str, blob: str) -> bytes:
        """Entries of the parent's tree, for mktree, with train.py replaced."""
        entries = [e for e in self.must("ls-tree", "-z", parent).split(b"\0") if e]
        name = b"\t" + FILE.encode()
        before = next((e for e in entries if e.endswith(name)), b"100644")
        mode = before.split(b" ")[0]
        if not mode.startswith(b"100"):
            raise BadInput(f"{FILE} of {parent[:10]} is not a regular file: commit it as one")
        others = [e for e in entries if e is not before]
        return b"".join(e + b"\0" for e in [*others, mode + b" blob " + blob.encode() + name])

    def land(self, old: str, new: str) -> bool:
        """Move the branch from `old` to `new`, on disk when this returns; False if it was not at `old`.

        Raises:
            HostFault: git could not write.
        """
        return self.swap(old, new)

    def swap(self, old: str, new: str) -> bool:
        """Compare-and-swap of the ref; an empty `old` means that it must not exist."""
        failpoint.reach("git.ref_moving")
        done = self.git("update-ref", "--no-deref", "--create-reflog", "-m", "autoresearch-org", self.ref, new, old)
        failpoint.reach("git.ref_moved")
        if done.code == 0:
            return True
        if (self.resolve(self.ref) or "") != old:
            return False
        if self.remove_dead_lock():
            return self.swap(old, new)
        raise HostFault(f"git could not move {self.branch}: {done.error}")

    def remove_dead_lock(self) -> bool:
        """Remove the ref's lock if it belongs to a git that was killed: a living one holds it for milliseconds."""
        path = os.fsdecode(self.must("rev-parse", "--git-path", f"{self.ref}.lock").rstrip(b"\n"))
        lock = self.repository / path
        with suppress(FileNotFoundError):
            if time.time() - lock.stat().st_mtime > LOCK_PATIENCE_S:
                lock.unlink()
                return True
        return False

    # ---- git ---------------------------------------------------------------------------------------------------------

    def must(self, *arguments: str, given: bytes = b"") -> bytes:
        """Output of a git command. Raises HostFault with its last line when it fails."""
        done = self.git(*arguments, given=given)
        if done.code:
            raise HostFault(f"git {arguments[0]} failed in {self.repository}: {done.error}")
        return done.output

    def git(self, *arguments: str, given: bytes = b"") -> Done:
        return run_git(self.repository, *arguments, given=given)


def branches(repository: Path) -> list[str]:
    """Campaigns that have a branch in this repository."""
    listed = run_git(repository, "for-each-ref", "--format=%(refname:lstrip=3)", "refs/heads/autoresearch/")
    return listed.output.decode(errors="replace").split()


def run_git(repository: Path, *arguments: str, given: bytes = b"", variables: Mapping[str, str] = {}) -> Done:
    """Run git in a folder, with further environment variables. Raises MissingComponent if there is no git."""
    settings = [part for setting in SETTINGS for part in ("-c", setting)]
    # GIT_DIR and its like, set when we are called from a hook, would lead us to another repository or index.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    identity = {
        f"GIT_{who}_{what}": text
        for who in ("AUTHOR", "COMMITTER")
        for what, text in (("NAME", AUTHOR), ("EMAIL", EMAIL))
    }
    try:
        done = subprocess.run(
            ["git", *settings, *arguments],
            cwd=repository,
            env=environment | identity | dict(variables) | {"LC_ALL": "C"},
            input=given,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise MissingComponent("git is not installed: apt-get install git") from None
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith(("fatal", "error"))]
    return Done(done.returncode, done.stdout, lines[0] if lines else "it gave no reason")
