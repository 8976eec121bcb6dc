"""A patch is applied as `git apply` would, to one text, and to no other file."""

import difflib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.patch import apply_patch
from agents.syntax import BadCandidate

OLD = "a = 1\nb = 2\n\nc = 3\nd = 4\ne = 5\nf = 6\ng = 7\nh = 8\n"
HEAD = "--- a/train.py\n+++ b/train.py\n"

texts = st.lists(st.sampled_from(["a", "b", "", " c", "-- d", "++ e", "\x0c", "\u2028f"]), max_size=12).map(
    lambda lines: "".join(f"{line}\n" for line in lines)
)


@settings(max_examples=300, deadline=None)
@given(texts, texts, st.integers(0, 3))
def test_a_diff_of_two_texts_makes_one_of_the_other(old: str, new: str, context: int) -> None:
    before, after = ([f"{line}\n" for line in text.split("\n")[:-1]] for text in (old, new))
    patch = "".join(difflib.unified_diff(before, after, "a/train.py", "b/train.py", n=context))
    if patch:
        assert apply_patch(old, patch, "train.py") == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (OLD, OLD.replace("c = 3", "c = 30").replace("h = 8\n", "h = 8\ni = 9\n")),
        (OLD, OLD.removesuffix("\n")),
        (OLD.removesuffix("\n"), OLD),
        (OLD.removesuffix("\n"), OLD.replace("h = 8\n", "h = 9")),
        (OLD, "z = 0\n" + OLD),
        (OLD, ""),
        ("", OLD),
    ],
)
def test_it_agrees_with_git(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "train.py").write_text(old)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True)
    (tmp_path / "train.py").write_text(new)
    patch = subprocess.run([*git, "diff"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert apply_patch(old, patch, "train.py") == new
    subprocess.run([*git, "checkout", "-q", "train.py"], cwd=tmp_path, check=True)
    subprocess.run([*git, "apply"], cwd=tmp_path, check=True, input=patch, text=True)
    assert (tmp_path / "train.py").read_text() == new


def test_a_hunk_may_have_moved_where_only_one_place_fits() -> None:
    assert apply_patch(OLD, f"{HEAD}@@ -40,1 +40,1 @@\n-c = 3\n+c = 30\n", "train.py") == OLD.replace("3", "30")


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ("", "no unified diff"),
        ("c = 30\n", "no unified diff"),
        ("--- a/../../etc/passwd\n+++ b/../../etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", "changes a/../../etc/passwd; only train.py"),
        ("--- a/train.py\n+++ b/../train.py\n@@ -1 +1 @@\n-a = 1\n+a = 2\n", "changes b/../train.py"),
        ("--- /dev/null\n+++ b/train.py\n@@ -0,0 +1 @@\n+a\n", "changes /dev/null"),
        (f"{HEAD}@@ -1 +1 @@\n-a = 1\n+a = 2\n--- a/prepare.py\n+++ b/prepare.py\n@@ -1 +1 @@\n-x\n+y\n", "changes a/prepare.py"),
        (f"{HEAD}@@ -1 +1 @@\n-a = 1\n+a = 2\n{HEAD}@@ -2 +2 @@\n-b = 2\n+b = 3\n", "named twice"),
        (f"{HEAD}@@ -1 +1 @@\n-a = 7\n+a = 2\n", "does not fit"),
        (f"{HEAD}@@ -40 +40 @@\n-\n+x\n", "does not fit"),
        (f"{HEAD}@@ -1,2 +1,2 @@\n-a = 1\n+a = 2\n", "other lines than its header says"),
        (f"{HEAD}@@ -2 +2 @@\n-b = 2\n+b = 3\n@@ -1 +1 @@\n-a = 1\n+a = 2\n", "does not fit"),
        (f"{HEAD}rename to prepare.py\n", "no part of a unified diff: rename to prepare.py"),
    ],
)  # fmt: skip
def test_what_is_no_patch_of_this_file_is_refused_on_one_line(patch: str, why: str) -> None:
    old = OLD.replace("\n\n", "\n")
    with pytest.raises(BadCandidate) as refused:
        apply_patch(old, patch, "train.py")
    assert why in str(refused.value) and "\n" not in str(refused.value)


def test_a_hunk_that_fits_twice_is_refused() -> None:
    with pytest.raises(BadCandidate, match=r"patch\.diff:3: this hunk fits at 2 places"):
        apply_patch("a\nx\na\n", f"{HEAD}@@ -9 +9 @@\n-a\n+b\n", "train.py")
