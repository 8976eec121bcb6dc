"""results.tsv is what the original's notebook reads."""

import csv
import io
from pathlib import Path

import pytest
from pyarrow import parquet

from ledger.export import results_tsv, write_experiments
from records import BadInput, Experiment, FailureKind, Verdict
from tests.ledger.org import Org
from tests.ledger.samples import BASE, failed, idea, program, scored, sha256_of

NO = Verdict(merge=False, rule="test", champion_bpb=1.0, candidate_bpb=1.1, reason="higher")


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


def test_an_empty_campaign_is_the_header() -> None:
    assert results_tsv([]) == "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"


def test_kept_discarded_and_crashed_runs_have_a_line_and_nothing_else_has(org: Org) -> None:
    org.baseline(1.0)
    org.ledger.discard(org.scored("worse", 1.1), NO)
    org.ledger.record(org.running("broken"), org.lease, failed("broken", FailureKind.OOM))
    org.ledger.refuse(org.claimed(), "no", {})
    org.running("still at work")
    org.propose()
    rows = read(results_tsv(org.ledger.experiments()))
    assert [tuple(row.values()) for row in rows] == [
        (BASE[:7], "1.000000", "2.0", "keep", "baseline"),
        (sha256_of("worse")[:7], "1.100000", "2.0", "discard", "an idea"),
        (sha256_of("broken")[:7], "0.000000", "0.0", "crash", "an idea"),
    ]


def test_a_title_cannot_break_the_table(org: Org) -> None:
    id = org.ledger.propose(idea('two\nlines\tand a tab\r"quoted'), author="p", roles={})
    assert id is not None
    org.ledger.claim("coder")
    org.ledger.code(id, program("x"), {})
    row = org.ledger.experiment(id)
    row = row.model_copy(update={"state": "discarded", "measurements": [scored("x", 1.1)]})
    assert read(results_tsv([row]))[0]["description"] == 'two lines and a tab "quoted'


def test_the_file_is_replaced_in_one_step(org: Org, tmp_path: Path) -> None:
    org.baseline()
    path = tmp_path / "results.tsv"
    path.write_text("old")
    write_experiments(path, org.ledger.experiments())
    assert path.read_text() == results_tsv(org.ledger.experiments())
    assert list(tmp_path.iterdir()) == [path]


def test_json_lines_have_everything(org: Org, tmp_path: Path) -> None:
    org.baseline(1.0)
    org.ledger.discard(org.scored("worse", 1.1), NO)
    org.propose("naïve\nidea")
    path = tmp_path / "night.jsonl"
    write_experiments(path, org.ledger.experiments())
    read = [Experiment.model_validate_json(line) for line in path.read_text().splitlines()]
    assert read == org.ledger.experiments()


def test_the_parquet_table_has_a_row_each_and_everything_in_its_last_column(org: Org, tmp_path: Path) -> None:
    org.baseline(1.0)
    org.ledger.discard(org.scored("worse", 1.1), NO)
    org.propose()
    path = tmp_path / "night.parquet"
    write_experiments(path, org.ledger.experiments())
    rows = parquet.read_table(path).to_pylist()
    assert [(row["id"], row["state"], row["val_bpb"], row["champion_bpb"]) for row in rows] == [
        (1, "merged", 1.0, None),
        (2, "discarded", 1.1, 1.0),
        (3, "proposed", None, None),
    ]
    assert rows[1]["why"] == "higher" and rows[1]["source_sha256"] == sha256_of("worse") and rows[1]["parent"] == BASE
    assert [Experiment.model_validate_json(row["json"]) for row in rows] == org.ledger.experiments()


def test_an_ending_that_names_no_format_writes_nothing(org: Org, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\.tsv, \.jsonl, \.parquet"):
        write_experiments(tmp_path / "night.xlsx", org.ledger.experiments())
    assert list(tmp_path.iterdir()) == []
