"""Whose fault it was, in one clean line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from records import FailureKind
from sandbox.failure import MESSAGE_CHARS, Ending, classify, clean, fail


def ending(code: int, log: str = "", oom: bool = False) -> Ending:
    return Ending(code, oom, None, log)


@pytest.mark.parametrize(
    ("ended", "kind", "says"),
    [
        (
            ending(1, "Traceback\n  File\nValueError: no\n"),
            FailureKind.CRASH,
            "exit code 1 while training: ValueError: no",
        ),
        (ending(1), FailureKind.CRASH, "no output"),
        (ending(139), FailureKind.CRASH, "killed by SIGSEGV"),
        (ending(0, "all done"), FailureKind.NO_SUBMIT, "without submitting"),
        (ending(0, "", oom=True), FailureKind.OOM, "memory limit"),
        (ending(137, "ValueError: no", oom=True), FailureKind.OOM, "memory limit"),
        (ending(1, "torch.OutOfMemoryError: CUDA out of memory. Tried"), FailureKind.OOM, "Tried"),
        (ending(1, "MemoryError"), FailureKind.OOM, "MemoryError"),
        (ending(1, "CUDA out of memory\nValueError: something else"), FailureKind.CRASH, "something else"),
    ],
)
def test_how_a_container_ended_says_what_failed(ended: Ending, kind: FailureKind, says: str) -> None:
    failure = classify(ended, "while training").failure
    assert failure.kind == kind and says in failure.message


def test_words_of_a_candidate_never_make_a_failure_ours() -> None:
    for log in ("EngineLost: docker is gone", "host_error: disk full", "gpu_dirty", "disturbed: not alone"):
        assert not classify(ending(1, log), "while training").failure.kind.ours


@given(st.text(max_size=2000))
def test_messages_and_logs_can_be_shown_on_any_terminal(text: str) -> None:
    message = fail(FailureKind.CRASH, text).message
    assert len(message) <= MESSAGE_CHARS and "\n" not in message and "\x1b" not in message
    assert not any(c in clean(text, 8000) for c in "\x00\x1b\x07\x9b\u202e\r")


def test_escapes_are_removed_whole() -> None:
    assert clean("a\x1b[31mred\x1b[0m \x1b]0;title\x07b\u202ec\r\nd", 100) == "ared bc\nd"
