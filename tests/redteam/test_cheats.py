"""The cheaters' gallery: no cheat scores better than its honest twin, and each of them fools the original's harness."""

import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from records import SOURCE_LIMIT_BYTES
from sandbox.engines import pick_engine
from tests.components import require
from tests.redteam.gallery import TABLE, Cheat, Finding, Gallery, compose, make_dataset, read_cheats
from tests.redteam.naive import NaiveHarness

CHEATS = read_cheats()
Findings = dict[str, Future[Finding]]


@pytest.fixture(scope="module")
def findings(
    request: pytest.FixtureRequest, state_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Findings]:
    """Of the cheats that are tested in this run, as they come in."""
    require(shutil.which("runc") is not None and os.geteuid() == 0, "runc is missing (apt-get install runc, as root)")
    state_dir.mkdir(parents=True, exist_ok=True)
    chosen = [item.callspec.params.get("cheat") for item in request.session.items if hasattr(item, "callspec")]
    dataset = make_dataset(tmp_path_factory.mktemp("gallery"))
    with NaiveHarness(dataset.path) as harness:
        gallery, pool = (
            Gallery(dataset, pick_engine("runc", state_dir=state_dir), state_dir, harness, full_audits=False),
            ThreadPoolExecutor(2),
        )
        yield gallery.find([cheat for cheat in CHEATS if cheat in chosen], pool)
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("cheat", CHEATS, ids=[cheat.name for cheat in CHEATS])
def test_a_cheat_pays_in_the_naive_harness_and_not_here(cheat: Cheat, findings: Findings) -> None:
    finding = findings[cheat.name].result()
    assert finding.audited_twin.failure is None, finding.audited_twin
    assert finding.verdict == cheat.verdict, finding.audited

    believed, believed_twin = finding.believed, finding.believed_twin
    assert believed.bpb is not None and believed_twin.bpb is not None, (believed, believed_twin)
    match cheat.naive:
        case "nan":
            assert math.isnan(believed.bpb)
        case "better":
            assert believed.bpb < believed_twin.bpb - cheat.margin
        case other:
            assert other == "believed"


def test_a_cheat_is_a_plausible_train_py() -> None:
    for cheat in CHEATS:
        source = compose(cheat.name, True)
        compile(source, cheat.name, "exec")
        assert len(source.encode()) <= SOURCE_LIMIT_BYTES or cheat.name == "oversized_source"
        assert compose(cheat.name, False) == source.replace("CHEAT = True", "CHEAT = False")


def test_the_gallery_has_many_and_its_table_names_each() -> None:
    assert len(CHEATS) >= 32
    named = [line.split("`")[1] for line in TABLE.read_text().splitlines() if line.startswith("| the ")]
    assert named == [cheat.name for cheat in CHEATS]
