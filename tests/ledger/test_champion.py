"""The branch of merges, beside a user who goes on working."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import git
import pytest

from ledger.champion import Champion
from records import BadInput, HostFault, MissingComponent
from tests.ledger.repository import START, Repository
from tests.ledger.samples import sha256_of


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "lab")


@pytest.fixture
def champion(repository: Repository) -> Champion:
    champion = Champion(repository.root, "night")
    champion.start(START)
    return champion


def test_the_branch_starts_at_head_when_train_py_is_committed(repository: Repository) -> None:
    champion = Champion(repository.root, "night")
    assert champion.start(START) == champion.head() == repository.git("rev-parse", "HEAD")


def test_an_edited_train_py_is_recorded_above_head(repository: Repository) -> None:
    champion = Champion(repository.root, "night")
    start = champion.start("LR = 2.0\n")
    assert champion.source(start) == "LR = 2.0\n"
    assert repository.git("rev-parse", f"{start}^") == repository.git("rev-parse", "HEAD")


def test_a_second_start_finds_the_first(repository: Repository) -> None:
    first = Champion(repository.root, "night").start("LR = 2.0\n")
    assert Champion(repository.root, "night").start("LR = 3.0\n") == first


def test_starts_that_race_agree(repository: Repository) -> None:
    barrier = threading.Barrier(8)

    def start(index: int) -> str:
        barrier.wait()
        return Champion(repository.root, "night").start(f"LR = {index}\n")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(start, range(8)))) == 1


def test_the_landed_tree_differs_in_nothing_but_train_py(repository: Repository, champion: Champion) -> None:
    parent = champion.head()
    commit = champion.prepare(parent, "LR = 0.5\n", "experiment 1: lower\n")
    assert champion.land(parent, commit)
    assert champion.head() == commit
    assert repository.git("diff-tree", "-r", "--name-only", parent, commit) == "train.py"
    assert "100755" in repository.git("ls-tree", commit, "setup.sh")


@pytest.mark.parametrize("source", ["LR = 1\r\nLR = 2\n", "no newline at the end", "# é →\n", "trailing \t \n\n\n"])
def test_exactly_the_measured_bytes_land_whatever_the_user_has_set(repository: Repository, source: str) -> None:
    repository.git("config", "core.autocrlf", "true")
    (repository.root / ".gitattributes").write_text("*.py text eol=crlf\n")
    repository.commit("attributes")
    champion = Champion(repository.root, "night")
    commit = champion.prepare(champion.start(START), source, "experiment 1\n")
    assert champion.landed_source_sha256(commit) == sha256_of(source)
    assert champion.source(commit) == source


def test_the_users_tree_index_and_head_are_untouched_byte_for_byte(repository: Repository) -> None:
    repository.make_a_mess()
    before, status = repository.fingerprint(), repository.git("status", "--porcelain")
    before = repository.fingerprint()
    champion = Champion(repository.root, "night")
    parent = champion.start("LR = 2.0\n")
    assert champion.land(parent, champion.prepare(parent, "LR = 0.5\n", "experiment 1\n"))
    assert repository.fingerprint() == before
    assert repository.git("status", "--porcelain") == status


def test_a_branch_that_moved_is_left_where_it_is(repository: Repository, champion: Champion) -> None:
    parent = champion.head()
    mine = champion.prepare(parent, "LR = 0.5\n", "experiment 1\n")
    theirs = repository.commit_on(champion.branch, "LR = 7\n")
    assert not champion.land(parent, mine)
    assert champion.head() == theirs
    assert not champion.contains(mine)


def test_one_of_two_merges_onto_the_same_parent_lands(champion: Champion) -> None:
    parent = champion.head()
    commits = [champion.prepare(parent, f"LR = {i}\n", f"experiment {i}\n") for i in range(8)]
    barrier = threading.Barrier(8)

    def land(commit: str) -> bool:
        barrier.wait()
        try:
            return champion.land(parent, commit)
        except HostFault:  # the ref was locked by another one at this moment
            return False

    with ThreadPoolExecutor(8) as pool:
        landed = [commit for commit, ok in zip(commits, pool.map(land, commits), strict=True) if ok]
    assert landed == [champion.head()]


def test_a_lock_that_somebody_left_is_named(repository: Repository, champion: Champion) -> None:
    (repository.root / ".git" / f"{champion.ref}.lock").touch()
    commit = champion.prepare(champion.head(), "LR = 0.5\n", "experiment 1\n")
    with pytest.raises(HostFault, match=r"night\.lock"):
        champion.land(champion.head(), commit)


def test_merges_carry_our_name_and_no_hook_or_signature_of_the_user(repository: Repository, champion: Champion) -> None:
    for hook in ("reference-transaction", "pre-commit", "post-commit"):
        path = repository.root / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\nexit 1\n")
        path.chmod(0o755)
    repository.git("config", "commit.gpgsign", "true")
    repository.git("config", "user.signingkey", "nobody")
    parent = champion.head()
    commit = champion.prepare(parent, "LR = 0.5\n", "experiment 1\n")
    assert champion.land(parent, commit)
    ours = "autoresearch-org <autoresearch-org@localhost>"
    assert repository.git("show", "-s", "--format=%an <%ae>|%cn <%ce>", commit) == f"{ours}|{ours}"


def test_an_environment_that_points_elsewhere_is_ignored(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other.root / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    start = Champion(repository.root, "night").start(START)
    monkeypatch.undo()
    assert repository.git("rev-parse", "autoresearch/night") == start
    assert other.git("branch", "--list", "autoresearch/*") == ""


def test_a_worktree_of_the_repository_is_a_lab_too(repository: Repository, tmp_path: Path) -> None:
    repository.git("worktree", "add", "--quiet", "-b", "mine", str(tmp_path / "second"))
    champion = Champion(tmp_path / "second", "night")
    assert champion.start(START) == repository.git("rev-parse", "autoresearch/night")


def test_a_branch_that_is_checked_out_is_refused_with_the_way_out(repository: Repository, champion: Champion) -> None:
    repository.git("switch", "--quiet", champion.branch)
    with pytest.raises(BadInput, match=r"has autoresearch/night checked out .* switch --detach"):
        Champion(repository.root, "night")
    repository.git("switch", "--quiet", "--detach")
    Champion(repository.root, "night")


def test_a_folder_without_a_repository_is_refused_with_the_way_out(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    for folder in (tmp_path / "bare", repository.root / "roles"):
        with pytest.raises(MissingComponent, match="is not the root of a git repository: run `git init"):
            Champion(folder, "night")


def test_a_repository_without_a_commit_is_refused(tmp_path: Path, repository: Repository) -> None:
    (tmp_path / "new").mkdir()
    repository.git("init", "--quiet", str(tmp_path / "new"))
    with pytest.raises(BadInput, match="has no commit"):
        Champion(tmp_path / "new", "night").start(START)


def test_a_repository_of_another_user_is_refused_with_what_to_run(repository: Repository) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(repository.root, 12345, 12345)
    os.chown(repository.root / ".git", 12345, 12345)
    with pytest.raises(MissingComponent, match=r"git config --global --add safe\.directory"):
        Champion(repository.root, "night")


@pytest.mark.parametrize("name", ["a b", "a..b", "a~1", "x.lock"])
def test_a_name_that_git_does_not_allow_is_refused(repository: Repository, name: str) -> None:
    with pytest.raises(BadInput, match="git allows no branch"):
        Champion(repository.root, name)


def test_a_train_py_that_is_no_text_or_no_file_is_refused(repository: Repository) -> None:
    (repository.root / "train.py").write_bytes(b"\xff\xfe")
    binary = repository.commit("binary")
    (repository.root / "train.py").unlink()
    missing = repository.commit("missing")
    (repository.root / "train.py").symlink_to("README.md")
    link = repository.commit("link")
    champion = Champion(repository.root, "night")
    with pytest.raises(BadInput, match="is not UTF-8"):
        champion.source(binary)
    with pytest.raises(MissingComponent, match=r"has no train\.py"):
        champion.source(missing)
    with pytest.raises(BadInput, match="is not a regular file"):
        champion.prepare(link, "x", "experiment 1\n")


def test_another_reader_of_git_finds_the_merges_as_they_were_landed(repository: Repository, champion: Champion) -> None:
    parent = champion.head()
    for step in (1, 2):
        commit = champion.prepare(
            champion.head(), f"LR = {step / 4}\n", f"experiment {step}: é\n\nExperiment: {step}\n"
        )
        assert champion.land(champion.head(), commit)
    with git.Repo(repository.root) as repo:
        landed = list(repo.iter_commits(f"{parent}..{champion.branch}"))
        assert [c.trailers_dict for c in landed] == [{"Experiment": ["2"]}, {"Experiment": ["1"]}]
        assert [(c.tree / "train.py").data_stream.read() for c in landed] == [b"LR = 0.5\n", b"LR = 0.25\n"]
        assert {c.author.name for c in landed} == {"autoresearch-org"}
        assert all([d.b_path for d in c.parents[0].diff(c)] == ["train.py"] for c in landed)


# ---- records ---------------------------------------------------------------------------------------------------------


def test_a_record_is_in_the_commit_and_not_in_the_log(repository: Repository, champion: Champion) -> None:
    record = '{"title":"caf\\u00e9 \\n done","more":"' + "x" * 100_000 + '"}'
    parent = champion.head()
    commit = champion.prepare(parent, "LR = 0.5\n", "experiment 1: lower\n\nExperiment: 1\n", record)
    assert champion.land(parent, commit)
    assert champion.record(commit) == record
    assert champion.record(parent) is None
    assert "more" not in repository.git("log", champion.branch)
    repository.git("fsck", "--strict")


def test_a_record_goes_wherever_its_commit_goes(repository: Repository, champion: Champion, tmp_path: Path) -> None:
    parent = champion.head()
    commit = champion.prepare(parent, "LR = 0.5\n", "experiment 1\n", '{"a":1}')
    assert champion.land(parent, commit)
    options = ("-c", "transfer.fsckObjects=true", "clone", "--quiet", "--bare", "--no-local")
    repository.git(*options, str(repository.root), str(tmp_path / "copy"))
    there = git.Repo(tmp_path / "copy").git.cat_file("commit", commit)
    assert 'autoresearch-record {"a":1}' in there.splitlines()


def test_a_campaign_that_tells_what_it_is_begins_with_a_commit_of_its_own(repository: Repository) -> None:
    champion = Champion(repository.root, "a.night")
    start = champion.start(START, '{"name":"a.night"}')
    assert repository.git("rev-parse", f"{start}^") == repository.git("rev-parse", "HEAD")
    assert repository.git("diff", "--stat", "HEAD", start) == ""
    other = Champion(repository.root, "aXnight")
    other.start(START, "{}")
    assert champion.land(start, champion.prepare(start, "LR = 0.5\n", "one\n\nCampaign: a.night\n", "{}"))
    assert champion.beginning() == start
    assert other.beginning() == other.head()


def test_a_branch_begun_without_a_record_has_no_beginning(champion: Champion) -> None:
    assert champion.beginning() is None
