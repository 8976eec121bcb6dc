"""What the host makes of a line from a candidate: a message of the protocol, or a breach that ends the run."""

import json
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.gate import Done, Gate, GateError, Ready, Report, Submit, parse


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('{"type": "ready"}', Ready),
        ('{"type": "progress", "step": 1, "tokens": 2, "loss": 3.5}', Report),
        ('{"type": "progress", "step": 1, "tokens": 2, "loss": null}', Report),
        ('{"type": "submit", "step": 1, "tokens": 2}', Submit),
        ('{"type": "done"}', Done),
    ],
)
def test_messages_of_the_protocol_are_read(line: str, kind: type) -> None:
    assert isinstance(parse(line.encode()), kind)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b'{"type": "go"}',
        b'{"type": "ready", "budget_s": 1e9}',
        b'{"type": "progress", "step": -1, "tokens": 2, "loss": 3.5}',
        b'{"type": "progress", "step": 1e300, "tokens": 2, "loss": 3.5}',
        b'{"type": "progress", "step": true, "tokens": 2, "loss": 3.5}',
        b'{"type": "progress", "step": 1, "tokens": 2, "loss": NaN}',
        b'{"type": "progress", "step": 1, "tokens": 2, "loss": "\\u001b[2J"}',
        b'{"type": "progress", "step": %s, "tokens": 2, "loss": 1.0}' % (b"9" * 4000),
        b"[" * 4000,
    ],
)
def test_anything_else_is_a_breach_told_without_quoting_it(line: bytes) -> None:
    with pytest.raises(GateError) as breach:
        parse(line)
    assert str(breach.value).isprintable() and len(str(breach.value)) < 100


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_no_bytes_do_worse_than_a_breach(line: bytes) -> None:
    with pytest.raises(GateError):
        parse(line)


def test_messages_arrive_in_order_however_they_are_cut(tmp_path: Path) -> None:
    with Gate(tmp_path) as gate, socket.socket(socket.AF_UNIX) as candidate:
        assert gate.receive(0.0) is None
        candidate.connect(str(tmp_path / "gate.sock"))
        candidate.sendall(b'{"type": "rea')
        assert gate.receive(0.05) is None
        candidate.sendall(b'dy"}\n{"type": "done"}\n')
        assert isinstance(gate.receive(1.0), Ready)
        assert isinstance(gate.receive(1.0), Done)
        gate.go(5.0, 7)
        assert json.loads(candidate.recv(4096)) == {"type": "go", "budget_s": 5.0, "data_seed": 7}
        candidate.close()
        assert gate.receive(0.1) is None and gate.closed
