"""Somebody's results.tsv can be looked at, and is never mistaken for what was measured here."""

from pathlib import Path

import pytest
import redis

from ledger import Ledger
from ledger.champion import Champion
from ledger.export import results_tsv, write_experiments
from ledger.imports import imported_campaign, read_claims, rows_of
from ledger.inspection import inspect
from ledger.selection import Order, Selection, find
from records import BadInput, Experiment, State
from tests.ledger.night import Night
from tests.ledger.repository import Repository

RESULTS = (
    "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
    "baseline\t1.204500\t3.5\tkeep\tbaseline\n"
    "0a1b2c3\t1.190010\t3.5\tkeep\twider: 4 → 6 heads\n"
    "4d5e6f7\t1.210000\t4.0\tdiscard\tdrop the norm, and a long description of " + "many words " * 20 + "\n"
    "8a9b0c1\t0.000000\t0.0\tcrash\tlearning rate x100\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "results.tsv"
    path.write_text(RESULTS)
    return path


def load(client: redis.Redis, path: Path, name: str = "theirs") -> Ledger:
    ledger = Ledger(client, name)
    campaign = imported_campaign(name, path)
    ledger.load(campaign, rows_of(campaign, read_claims(path)), "imported", campaign.imported_from)
    return ledger


def test_an_export_of_an_import_is_the_file_digit_for_digit(client: redis.Redis, path: Path) -> None:
    rows = load(client, path).experiments()
    assert results_tsv(rows) == RESULTS
    jsonl = path.with_suffix(".jsonl")
    write_experiments(jsonl, rows)
    assert [Experiment.model_validate_json(line) for line in jsonl.read_text().splitlines()] == rows
    write_experiments(path.with_suffix(".parquet"), rows)


def test_rows_are_claims_and_nothing_else(client: redis.Redis, path: Path) -> None:
    ledger = load(client, path)
    rows = ledger.experiments()
    assert {row.state for row in rows} == {State.IMPORTED} and {row.lane for row in rows} == {"imported"}
    assert all(row.score is None and row.verdict is None and row.commit is None for row in rows)
    assert ledger.champion_commit() is None and ledger.champion_score() == []
    assert ledger.spent().judged == ledger.spent().started == 0
    assert rows[0].why == "said to be keep; not measured here"


def test_lowest_claim_first_and_crashes_last(client: redis.Redis, path: Path) -> None:
    found = find(load(client, path), Selection(lane="imported"), Order.BPB)
    assert [row.id for row in found] == [2, 1, 3, 4]


def test_an_import_takes_no_campaigns_place(client: redis.Redis, path: Path, night: Night) -> None:
    with pytest.raises(BadInput, match="night exists already"):
        load(client, path, "night")
    assert [row.state for row in night.ledger.experiments()] == [State.MERGED]


def test_verify_says_that_nobody_measured_them(client: redis.Redis, path: Path, tmp_path: Path) -> None:
    ledger = load(client, path)
    champion = Champion(Repository(tmp_path / "lab").root, "theirs")
    checks = {check.name: check for check in inspect(ledger, champion, lambda _: None)}
    assert not any(check.complaints for check in checks.values())
    assert checks["receipts"].found == "0 measurements, signed by this lab"
    assert checks["receipts"].caveats == ["4 imported rows of claims: unsigned, and never measured here"]


def test_a_claim_that_was_changed_is_noticed(client: redis.Redis, path: Path, tmp_path: Path) -> None:
    ledger = load(client, path)
    champion = Champion(Repository(tmp_path / "lab").root, "theirs")
    claim = client.hget(ledger.row_key(2), "claim")
    assert isinstance(claim, str) and "1.190010" in claim
    client.hset(ledger.row_key(2), "claim", claim.replace("1.190010", "1.090010"))
    found = {check.name for check in inspect(ledger, champion, lambda _: None) if check.complaints}
    assert found == {"rows"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "its first line has to be commit val_bpb memory_gb status description"),
        ("commit,val_bpb,memory_gb,status,description\n", "its first line has to be"),
        (RESULTS + "a\tb\n", "line 6: 2 columns in place of 5"),
        (RESULTS + "a\tnan\t1.0\tkeep\tx\n", "line 6, val_bpb: "),
        (RESULTS + "a\t1e999999\t1.0\tkeep\tx\n", "line 6, val_bpb: "),
        (RESULTS + "a\t1.0\t-1\tkeep\tx\n", "line 6, memory_gb: "),
        (RESULTS + "a\t1.0\t1.0\tmerged\tx\n", "line 6, status: "),
        (RESULTS.splitlines()[0], "has no rows"),
    ],
)
def test_what_is_no_results_tsv_is_refused_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "results.tsv"
    path.write_text(text)
    with pytest.raises(BadInput, match=told):
        read_claims(path)


def test_line_ends_of_another_system_are_taken(path: Path) -> None:
    expected = read_claims(path)
    path.write_bytes(RESULTS.replace("\n", "\r\n").encode())
    assert read_claims(path) == expected
