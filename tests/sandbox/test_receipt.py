"""A receipt is what the host signed, to the last digit."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from records import BadInput, GpuReading, Measurement, MissingComponent
from sandbox.receipt import KEY, Key, read_receipt
from tests.ledger.samples import scored

GPU = GpuReading(
    uuid="GPU-1",
    name="H100",
    driver="580.1",
    least_sm_clock_mhz=1600,
    max_sm_clock_mhz=1980,
    most_power_w=651.25,
    power_limit_w=700.0,
    most_temperature_c=61,
    slowed_by=["sw_power_cap"],
)


@pytest.fixture
def measurement() -> Measurement:
    told = {"gpu": GPU, "log_tail": 'quoted "text" \u20ac \U0001f600\n', "data_seed": 2**31 - 1}
    return scored("LR = 0.1\n", 0.1 + 0.2).model_copy(update=told)


def test_a_signed_measurement_verifies_also_after_a_trip_through_a_file(
    measurement: Measurement, tmp_path: Path
) -> None:
    key = Key.of(tmp_path)
    signed = key.sign(measurement)
    assert key.complaint(signed) is None
    (tmp_path / "receipt.json").write_text(signed.model_dump_json(indent=2))
    back = read_receipt(tmp_path / "receipt.json")
    assert back == signed and Key.existing(tmp_path).complaint(back) is None


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in leaves(inner, (*path, name))]
    return [path]


def test_no_value_of_it_can_be_changed(measurement: Measurement, tmp_path: Path) -> None:
    key = Key.of(tmp_path)
    signed = key.sign(measurement)
    paths = leaves(signed.model_dump(mode="json"))
    assert len(paths) > 50
    for path in paths:
        values = signed.model_dump(mode="json")
        inner = values
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = other(inner[path[-1]])
        try:
            changed = Measurement.model_validate(values)
        except ValueError:
            continue  # not even a measurement
        assert key.complaint(changed) is not None, path


def other(value: Any) -> Any:
    if isinstance(value, float):
        return value + 1e-9
    if isinstance(value, bool | int):
        return value + 1
    return f"{value}x" if isinstance(value, str) else ["x"] if isinstance(value, list) else 1


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda m, key: m, "not signed"),
        (lambda m, key: key.sign(m).model_copy(update={"val_bpb": 0.1}), "not what was signed"),
        (lambda m, key: key.sign(m).model_copy(update={"hmac": "é"}), "not what was signed"),
        (lambda m, key: Key(b"k" * 32).sign(m), "signed with key"),
        (lambda m, key: Key(b"k" * 32).sign(m).model_copy(update={"key_id": key.id}), "not what was signed"),
    ],
    ids=["unsigned", "another score", "a broken signature", "another key", "another key under this one's name"],
)
def test_what_is_wrong_with_a_receipt_is_said(
    measurement: Measurement, tmp_path: Path, spoil: Callable[[Measurement, Key], Measurement], says: str
) -> None:
    key = Key.of(tmp_path)
    complaint = key.complaint(spoil(measurement, key))
    assert complaint is not None and says in complaint


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    with pytest.raises(MissingComponent):
        Key.existing(tmp_path / "state")
    first = Key.of(tmp_path / "state")
    assert Key.of(tmp_path / "state").id == first.id
    assert (tmp_path / "state" / KEY).stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "state") == [KEY]  # noqa: PTH208
    (tmp_path / "state" / KEY).chmod(0o640)
    with pytest.raises(BadInput, match="others can read the key"):
        Key.of(tmp_path / "state")
    (tmp_path / "state" / KEY).chmod(0o600)
    (tmp_path / "state" / KEY).write_bytes(b"short")
    with pytest.raises(BadInput, match="is not a key"):
        Key.of(tmp_path / "state")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"val_bpb": 1}', "\xff"])
def test_a_file_that_is_no_receipt_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "receipt.json").write_text(content)
    with pytest.raises(BadInput, match="is not a receipt"):
        read_receipt(tmp_path / "receipt.json")
    with pytest.raises(BadInput, match="cannot be read"):
        read_receipt(tmp_path / "nothing.json")
