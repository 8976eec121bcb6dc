"""results.tsv is what the original's notebook reads."""

import csv
import io
from pathlib import Path

from ledger.export import results_tsv, write_results
from records import FailureKind, Verdict
from tests.ledger.conftest import Org
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
    write_results(path, org.ledger.experiments())
    assert path.read_text() == results_tsv(org.ledger.experiments())
    assert list(tmp_path.iterdir()) == [path]
