"""A signal stops a run at once outside training, and by a flag while it trains."""

import os
import signal

import pytest

from mic.distributed.preemption import STOP_SIGNALS, listening
from mic.errors import Preempted


def ask(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("asked", STOP_SIGNALS)
def test_outside_training_it_ends_at_once_and_handlers_are_put_back(asked):
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    name = signal.Signals(asked).name
    with pytest.raises(Preempted, match=f"stopped by {name} outside training"), listening():
        ask(asked)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def import_lazily() -> None:
    try:
        ask(signal.SIGTERM)
    except Exception as error:  # as a lazy import does
        raise ModuleNotFoundError("no such thing") from error


def test_a_library_that_makes_another_error_of_it_changes_nothing():
    with pytest.raises(Preempted, match="stopped by SIGTERM") as caught, listening():
        import_lazily()
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_an_error_that_nobody_asked_for_stays_what_it_is():
    with pytest.raises(ValueError, match="mine"), listening():
        raise ValueError("mine")


def test_while_training_the_first_signal_sets_a_flag_and_the_second_changes_nothing():
    with listening() as stop:
        stop.waits = True
        ask(signal.SIGUSR1)
        assert stop.asked is signal.SIGUSR1
        ask(signal.SIGTERM)
        stop.waits = False
        ask(signal.SIGINT)  # on the way out, when the logs are closed
        assert stop.asked is signal.SIGUSR1
