"""An org file is checked whole before anything starts; what is wrong is one line with file, key and what is allowed."""

from pathlib import Path

import pytest
from rich.console import Console

from orgs.data import ensure_dataset
from orgs.lab import Lab
from orgs.orgfile import OrgFile
from records import BadInput, MissingComponent

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    (tmp_path / "orgs").mkdir()
    (tmp_path / "roles").mkdir()
    (tmp_path / "program.md").write_text("Lower val_bpb.\n")
    for role in ("planner", "coder", "reviewer"):
        (tmp_path / "roles" / f"{role}.md").write_text("---\nmind: sampler\n---\n")
    return tmp_path


def load(lab: Path, text: str) -> OrgFile:
    path = lab / "orgs" / "mine.toml"
    path.write_text(text)
    return OrgFile.load(path, lab)


def complaint(lab: Path, text: str) -> str:
    with pytest.raises(BadInput) as refused:
        load(lab, text)
    message = str(refused.value)
    assert "\n" not in message and "mine.toml" in message
    return message


@pytest.mark.parametrize("preset", sorted((ROOT / "orgs").glob("*.toml")), ids=lambda p: p.stem)
def test_every_preset_loads(preset: Path) -> None:
    org = OrgFile.load(preset, ROOT)
    assert org.name == preset.stem
    assert org.roles.settings(ROOT).keys() == {"planner", "coder", "reviewer"}


def test_an_empty_but_named_org_gets_the_defaults(lab: Path) -> None:
    org = load(lab, 'name = "mine"')
    assert org.budget.experiments == 100 and org.merge.rule == "two-run-min"
    assert org.headline.runs == 4


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["name", "is required"]),
        ('name = "My Org"', ["name", "My Org"]),
        ('name = "a"\nbudgets = 1', ["budgets", "unknown key", "budget", "sandbox"]),
        ('name = "a"\n[budget]\nexperimentz = 3', ["budget.experimentz", "unknown key", "experiments", "wall_minutes"]),
        (
            'name = "a"\n[roles.planner]\nfile = "roles/planner.md"\nmodel = "x"',
            ["roles.planner.model", "unknown key", "seats"],
        ),
        ('name = "a"\n[budget]\nexperiments = 0', ["budget.experiments", "greater than or equal to 1", "0"]),
        ('name = "a"\n[sandbox]\nengine = "chroot"', ["sandbox.engine", "docker", "runc", "chroot"]),
        ('name = "a"\n[merge]\nrule = "vibes"', ["merge.rule", "keep-if-lower", "vibes"]),
        ('name = "a"\n[roles.coder]\nfile = "roles/kodar.md"', ["roles.coder.file", "roles/kodar.md"]),
        ('name = "a"\n[headline]\nruns = -1', ["headline.runs", "greater than or equal to 0", "-1"]),
        ('name = "a"\n[headline]\nrun = 1', ["headline.run", "unknown key", "runs"]),
        ('name = "a"\nprogram = "plan.md"', ["program", "plan.md"]),
        ('name = "a"\n[data]\ncorpus = "local"', ["data: paths belong to the corpus 'local'"]),
        ('name = "a"\n[data]\npaths = ["texts"]', ["data: paths belong to the corpus 'local'"]),
        ('name = "a"\n[data]\nshards = 2', ["data: shards belong to the corpus 'climbmix'"]),
        ('name = "a"\n[data]\ncorpus = "climbmix"\nshards = 0', ["data.shards"]),
        ('name = "a"\n[data]\ndataset = "d"\nprofile = "cpu"', ["data: dataset stands in place of corpus"]),
        ('name = "a"\n[upkeep]\ncombin = true', ["upkeep.combin", "unknown key", "combine, leave_one_out"]),
        ('name = "a', ["not TOML"]),
    ],
)
def test_a_bad_file_is_refused_naming_key_and_what_is_allowed(lab: Path, text: str, parts: list[str]) -> None:
    message = complaint(lab, text)
    for part in parts:
        assert part in message


def test_a_missing_file_names_the_presets(lab: Path) -> None:
    (lab / "orgs" / "demo.toml").write_text('name = "demo"')
    with pytest.raises(BadInput, match=r"orgs/demo\.toml"):
        OrgFile.load(lab / "orgs" / "nope.toml", lab)


def test_the_identity_changes_with_the_values_a_role_or_the_program_and_with_nothing_else(lab: Path) -> None:
    org = load(lab, 'name = "mine"')
    before = org.identity(lab)
    assert load(lab, '# a comment\nname = "mine"').identity(lab) == before
    assert load(lab, 'name = "mine"\nseed = 2').identity(lab) != before
    for file in (lab / "roles" / "coder.md", lab / "program.md"):
        text = file.read_text()
        file.write_text(text + "more\n")
        assert org.identity(lab) != before
        file.write_text(text)
    assert org.identity(lab) == before


def test_what_a_role_replays_is_part_of_the_identity(lab: Path) -> None:
    (lab / "roles" / "planner.md").write_text("---\nmind: script\nscript: night.jsonl\n---\n")
    (lab / "night.jsonl").write_text("one\n")
    org = load(lab, 'name = "mine"')
    before = org.identity(lab)
    (lab / "night.jsonl").write_text("another\n")
    assert org.identity(lab) != before


def test_another_set_of_paths_is_another_dataset(lab: Path) -> None:
    def folder(data: str) -> Path:
        return Lab(lab).dataset(load(lab, f'name = "a"\n[data]\n{data}').data)

    datasets = lab / ".autoresearch" / "datasets"
    assert folder('corpus = "python"') == datasets / "python-cpu"
    assert folder('corpus = "climbmix"\nshards = 3') == datasets / "climbmix-cpu-3"
    assert folder('dataset = "made/by/hand"') == lab / "made/by/hand"
    local = 'corpus = "local"\npaths = ["a"]'
    assert folder(local) == folder(local.replace('"a"', f'"{lab}/a"'))
    assert len({folder(local), folder(local.replace('"a"', '"b"')), folder(local + '\nprofile = "small"')}) == 3
    assert folder(local).name.startswith("local-cpu-")


def test_a_download_without_a_network_is_something_missing(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (lab / "prepare.py").write_bytes((ROOT / "prepare.py").read_bytes())
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    org = load(lab, 'name = "a"\n[data]\ncorpus = "tinystories"')
    with pytest.raises(MissingComponent, match="its line above says why"):
        ensure_dataset(Lab(lab), org.data, Console(quiet=True))
    assert "127.0.0.1:9 cannot be reached" in capfd.readouterr().err


def test_a_corpus_that_is_not_there_is_named(lab: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (lab / "prepare.py").write_bytes((ROOT / "prepare.py").read_bytes())
    org = load(lab, 'name = "a"\n[data]\ncorpus = "local"\npaths = ["nowhere"]')
    with pytest.raises(BadInput, match=r"prepare\.py did not make local-cpu-"):
        ensure_dataset(Lab(lab), org.data, Console(quiet=True))
    assert capfd.readouterr().err == "prepare: nowhere: no such file or folder\n"
    org = load(lab, 'name = "a"\n[data]\ndataset = "nowhere"')
    with pytest.raises(MissingComponent, match="nowhere: no dataset here"):
        ensure_dataset(Lab(lab), org.data, Console(quiet=True))
