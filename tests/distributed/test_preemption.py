"""Being asked to stop: at once where nothing is at stake, by a flag where something is."""

import os
import signal

import pytest

from mic.distributed.preemption import ASKS, listening
from mic.errors import Preempted


def ask(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ASKS)
def test_outside_training_it_ends_at_once_and_handlers_are_put_back(number):
    before = [signal.getsignal(one) for one in ASKS]
    name = signal.Signals(number).name
    with pytest.raises(Preempted, match=f"stopped by {name} outside training"), listening():
        ask(number)
    assert [signal.getsignal(one) for one in ASKS] == before


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
