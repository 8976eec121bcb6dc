"""What becomes of a download from a server that truncates, stalls, lies, refuses, or is not there."""

import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.download import Patience, Published, fetch
from records import BadInput, HostFault, MissingComponent, Refusal
from tests.data.hub import Hub, requests_by_method, running_hub

HASTY = Patience(attempts=3, pause_s=0.01, longest_pause_s=0.05, stall_s=0.8)
CONTENT = random.Random(1).randbytes(300_000)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def published(name: str = "one.parquet", content: bytes | None = None) -> Published:
    return Published("somebody/texts", name, None if content is None else hashlib.sha256(content).hexdigest())


def complaint(*files: Published, folder: Path) -> Refusal:
    with pytest.raises(Refusal) as refused:
        fetch(files, folder, HASTY)
    assert "\n" not in str(refused.value)
    return refused.value


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


# ---- a server that behaves -------------------------------------------------------------------------------------------


def test_files_arrive_whole_with_their_hashes_and_are_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    contents = {f"{i}.parquet": CONTENT[i * 1000 :] for i in range(4)}
    for name, content in contents.items():
        hub.put(name, content, "is slow")
    files = [published(name) for name in contents]
    paths = fetch(files, tmp_path, HASTY)
    assert [path.read_bytes() for path in paths] == list(contents.values())
    assert hub.most_at_once == 4, "they were fetched at the same time"
    checked = subprocess.run(["sha256sum", "-c", *(f"{name}.sha256" for name in contents)], cwd=tmp_path, check=False)
    assert checked.returncode == 0
    asked = len(hub.asked)
    assert fetch(files, tmp_path, HASTY) == paths and len(hub.asked) == asked


def test_an_address_is_that_of_the_hub_or_of_its_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    address = "/datasets/somebody/texts/resolve/main/one.parquet"
    assert published().url == f"https://huggingface.co{address}"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert published().url == f"https://mirror.example{address}"


def test_what_has_arrived_is_not_fetched_twice(hub: Hub, tmp_path: Path) -> None:
    hub.put("one.parquet", CONTENT)
    (tmp_path / "one.parquet.part").write_bytes(CONTENT[:100_000])
    assert fetch([published()], tmp_path, HASTY)[0].read_bytes() == CONTENT
    assert hub.gets("one.parquet") == ["bytes=100000-"]


def test_a_part_that_was_complete_is_only_verified(hub: Hub, tmp_path: Path) -> None:
    hub.put("one.parquet", CONTENT)
    (tmp_path / "one.parquet.part").write_bytes(CONTENT)
    fetch([published()], tmp_path, HASTY)
    assert hub.gets("one.parquet") == [] and names(tmp_path) == ["one.parquet", "one.parquet.sha256"]


def test_a_file_that_was_damaged_since_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.put("one.parquet", CONTENT)
    (path,) = fetch([published()], tmp_path, HASTY)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch([published()], tmp_path, HASTY)[0].read_bytes() == CONTENT
    assert len(hub.gets("one.parquet")) == 2


# ---- a server that does not ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize(
    ("troubles", "gets"),
    [
        (["truncates"], 2),
        (["truncates", "truncates"], 3),
        (["stalls"], 2),
        (["announces less"], 2),
        (["announces more"], 1),  # all of it came, and it is what it must be
        (["sends other bytes"], 2),
        (["sends more"], 2),
        (["truncates", "sends other bytes"], 3),
        (["500"], 2),
        (["503", "stalls"], 3),
        (["429"], 2),
    ],
)
def test_a_server_in_trouble_is_asked_again(
    hub: Hub, tmp_path: Path, troubles: list[str], gets: int, pinned: bool
) -> None:
    hub.put("one.parquet", CONTENT, *troubles)
    file = published(content=CONTENT if pinned else None)
    assert fetch([file], tmp_path, HASTY)[0].read_bytes() == CONTENT
    assert gets <= len(hub.gets("one.parquet")) <= gets + 1
    assert names(tmp_path) == ["one.parquet", "one.parquet.sha256"]


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    hub.put("one.parquet", CONTENT, "truncates", "truncates")
    fetch([published()], tmp_path, HASTY)
    assert hub.gets("one.parquet") == [None, f"bytes={2 * 2**16}-", f"bytes={3 * 2**16}-"], "to a chunk"


def test_a_server_that_cannot_resume_sends_all_of_it_again(hub: Hub, tmp_path: Path) -> None:
    hub.resumes = False
    hub.put("one.parquet", CONTENT, "truncates")
    assert fetch([published()], tmp_path, HASTY)[0].read_bytes() == CONTENT


def test_a_server_says_how_long_to_wait(hub: Hub, tmp_path: Path) -> None:
    patient = Patience(attempts=2, pause_s=0.01, longest_pause_s=5.0, stall_s=5.0)
    hub.put("one.parquet", CONTENT, "429")
    started = os.times().elapsed
    fetch([published()], tmp_path, patient)
    assert os.times().elapsed - started >= 0.99, "it said one second"


def test_progress_earns_new_patience(hub: Hub, tmp_path: Path) -> None:
    content = random.Random(2).randbytes(2**26)
    hub.put("one.parquet", content, *["truncates"] * 5)  # 32, 16, 8, 4, 2 MiB: more failures than attempts
    assert fetch([published()], tmp_path, HASTY)[0].read_bytes() == content


@pytest.mark.parametrize(
    ("trouble", "says", "kept"),
    [
        ("500", "status 500", []),
        ("429", "status 429", []),
        ("stalls", "no answer in time", ["one.parquet.part"]),
        ("truncates", "the connection ended early", ["one.parquet.part"]),
        ("sends more", "more arrives than was announced", ["one.parquet.part"]),
    ],
)
def test_a_server_that_stays_in_trouble_is_given_up_in_one_line(
    hub: Hub, tmp_path: Path, trouble: str, says: str, kept: list[str]
) -> None:
    hub.put("one.parquet", CONTENT, *[trouble] * 40)
    refusal = complaint(published(), folder=tmp_path)
    assert isinstance(refusal, HostFault) and says in str(refusal) and "run it again" in str(refusal)
    assert len(hub.gets("one.parquet")) <= 6
    assert names(tmp_path) == kept
    hub.troubles["one.parquet"].clear()
    assert fetch([published()], tmp_path, HASTY)[0].read_bytes() == CONTENT


@pytest.mark.parametrize("what", ["pinned", "announced"])
def test_a_file_that_is_not_what_it_must_be_is_never_there(hub: Hub, tmp_path: Path, what: str) -> None:
    hub.put("one.parquet", CONTENT, *["sends other bytes"] * 9)
    refusal = complaint(published(content=b"another" if what == "pinned" else None), folder=tmp_path)
    assert isinstance(refusal, BadInput) and f"not the {what}" in str(refusal) and names(tmp_path) == []
    assert len(hub.gets("one.parquet")) == 2, "megabytes are not fetched over and over"


@pytest.mark.parametrize("head", [True, False])
def test_a_plain_server_is_believed_if_the_file_ends_as_it_must(hub: Hub, tmp_path: Path, head: bool) -> None:
    hub.announces_hash, hub.knows_head = False, head
    hub.put("one.parquet", CONTENT + b"PAR1")
    hub.put("cut.parquet", CONTENT)
    assert fetch([published()], tmp_path, HASTY)[0].read_bytes() == CONTENT + b"PAR1"
    assert "is no whole .parquet file" in str(complaint(published("cut.parquet"), folder=tmp_path))


def test_a_missing_file_is_not_asked_for_again_and_ends_the_others(hub: Hub, tmp_path: Path) -> None:
    hub.put("one.parquet", CONTENT)
    refusal = complaint(published(), published("two.parquet"), folder=tmp_path)
    assert isinstance(refusal, BadInput) and "two.parquet: status 404; is HF_ENDPOINT a mirror" in str(refusal)
    assert requests_by_method(hub)["HEAD"] <= 3 and not hub.gets("two.parquet")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://nowhere.invalid"])
def test_without_a_network_one_line_says_what_else_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    refusal = complaint(published(), folder=tmp_path)
    assert isinstance(refusal, MissingComponent) and "cannot be reached" in str(refusal)
    assert "--corpus python or local" in str(refusal)


def test_an_endpoint_that_is_no_address_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example")
    assert "HF_ENDPOINT must be like https://" in str(complaint(published(), folder=tmp_path))


def test_a_disk_that_is_too_small_is_told_before_anything_arrives(hub: Hub, tiny_disk: Path) -> None:
    hub.put("one.parquet", CONTENT)
    refusal = complaint(published(), folder=tiny_disk)
    assert isinstance(refusal, HostFault) and "no space: needs" in str(refusal) and not hub.gets("one.parquet")


def test_a_disk_that_fills_up_on_the_way_is_told_too(hub: Hub, tiny_disk: Path) -> None:
    hub.knows_head = False  # so that nobody knows how much will come
    hub.put("one.parquet", CONTENT)
    refusal = complaint(published(), folder=tiny_disk)
    assert isinstance(refusal, HostFault) and "No space left on device; make room and run it again" in str(refusal)
    assert names(tiny_disk) == ["one.parquet.part"]
