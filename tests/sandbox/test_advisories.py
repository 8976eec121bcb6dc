"""Which published ways out a version falls under, and what a distribution has mended in an old one."""

import gzip
from pathlib import Path

import pytest
from packaging.version import Version

from records import MissingComponent
from sandbox.advisories import ADVISORIES, is_fixed, latest_fix, number, open_advisories, refuse_open_advisories

# Of runc's three of November 2025: one fix for each branch that was alive.
FIXED = ("1.2.8", "1.3.3", "1.4.0")


@pytest.mark.parametrize("version", ["1.2.8", "1.2.9", "1.3.3", "1.4.0", "1.4.4", "1.5.0", "2.0.0"])
def test_a_version_at_or_after_the_fix_of_its_branch_is_mended(version: str) -> None:
    assert is_fixed(Version(version), FIXED)


@pytest.mark.parametrize("version", ["1.0.0rc93", "1.1.15", "1.2.7", "1.3.2", "1.4.0rc2"])
def test_a_version_before_it_or_of_a_branch_without_one_is_not(version: str) -> None:
    assert not is_fixed(Version(version), FIXED)


def test_a_version_that_cannot_be_read_is_not_taken_for_mended(tmp_path: Path) -> None:
    assert not is_fixed(number("a version of my own"), FIXED)
    assert len(open_advisories({"runc": ""}, tmp_path)) == sum(a.program == "runc" for a in ADVISORIES)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("1.1.5+ds1", "1.1.5"),
        ("20.10.24+dfsg1", "20.10.24"),
        ("1.6.20~ds1", "1.6.20"),
        ("1.4.0-rc.3", "1.4.0rc3"),
        ("NVIDIA Container Toolkit CLI version 1.17.8", "1.17.8"),
        ("runsc version release-20250319.0", "20250319"),
    ],
)
def test_a_version_is_found_in_what_a_program_says(said: str, version: str) -> None:
    assert number(said) == Version(version)


def write_changelog(documents: Path, first_line: str, body: str) -> None:
    (documents / "runc").mkdir()
    (documents / "runc" / "changelog.Debian.gz").write_bytes(gzip.compress(f"{first_line}\n\n{body}\n".encode()))


def cves(said: str, documents: Path) -> set[str]:
    return {problem.advisory.cve for problem in open_advisories({"runc": said}, documents)}


def test_what_the_changelog_of_a_distribution_names_is_mended_in_the_version_that_it_is_about(tmp_path: Path) -> None:
    assert "CVE-2024-21626" in cves("1.1.5+ds1", tmp_path)
    write_changelog(tmp_path, "runc (1.1.5+ds1-1+deb12u1) bookworm-security; urgency=high", "  * Fix CVE-2024-21626")
    assert "CVE-2024-21626" not in cves("1.1.5+ds1", tmp_path)
    assert "CVE-2025-31133" in cves("1.1.5+ds1", tmp_path)
    assert "CVE-2024-21626" in cves("1.1.4", tmp_path), "another version than the packaged one"


def test_the_fix_closes_all_of_them(tmp_path: Path) -> None:
    found = open_advisories({"runc": "1.1.5"}, tmp_path)
    assert {"CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881", "CVE-2024-21626"} <= {o.advisory.cve for o in found}
    assert latest_fix(found) == "install runc 1.3.6 or 1.4.3 or 1.5.0, or later"
    for version in ("1.3.6", "1.4.3", "1.5.0"):
        assert open_advisories({"runc": version}, tmp_path) == []


def test_strict_refuses_with_the_names_and_the_fix() -> None:
    with pytest.raises(
        MissingComponent, match=r"CVE-2024-0132: nvidia-ctk 1\.16\.1 .*\. install nvidia-ctk 1\.19\.1, or later"
    ):
        refuse_open_advisories({"nvidia-ctk": "1.16.1"})
    refuse_open_advisories({"runc": "1.4.4", "docker": "29.7.0", "containerd": "2.2.5", "nvidia-ctk": "1.19.1"})
