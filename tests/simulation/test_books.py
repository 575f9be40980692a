"""What a site wrote down, read back: the message and the next step, without the traceback and our modules' names."""

import traceback

import pytest

from fedseal.client.release import TaskError
from fedseal.errors import BudgetExceeded, PeerError
from fedseal.simulation.books import summary


def kept(error: Exception, *, cause: Exception | None = None) -> str:
    """An error as a site keeps it."""
    try:
        raise error from cause
    except type(error) as caught:
        return "".join(traceback.format_exception(caught))


class MyError(Exception):
    """Of a study's own."""


@pytest.mark.parametrize(
    ("error", "message", "step"),
    [
        (BudgetExceeded("spent: all of it", next_step="Ask."), "spent: all of it", "Ask."),
        (BudgetExceeded("spent"), "spent", ""),
        (PeerError("wrong", peer="server", next_step="Wait: then ask."), "wrong", "Wait: then ask."),
        (TaskError("no arrays", next_step="Look."), "no arrays", "Look."),
        (RuntimeError("the scanner is broken"), "RuntimeError: the scanner is broken", ""),
        (RuntimeError("one\ntwo\n\tthree"), "RuntimeError: one two three", ""),
        (KeyError("age"), "KeyError: 'age'", ""),
        (MyError("mine: x"), "MyError: mine: x", ""),
        (ValueError(), "ValueError", ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_message_and_its_next_step_are_found_below_a_traceback(error: Exception, message: str, step: str) -> None:
    assert summary(kept(error)) == (message, step)
    assert summary(kept(error, cause=BudgetExceeded("another", next_step="Not this."))) == (message, step)


def test_a_traceback_that_was_cut_at_its_beginning_says_the_same() -> None:
    text = kept(BudgetExceeded("spent", next_step="Ask."))
    for length in range(len("fedseal.errors.BudgetExceeded: spent\nnext: Ask.\n"), len(text)):
        assert summary(text[-length:])[1] == "Ask."
        assert summary(text[-length:])[0].endswith("spent")


def test_a_text_that_is_no_traceback_is_itself() -> None:
    assert summary("anything\n") == ("anything", "")
