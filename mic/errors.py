"""Define the errors that end a command: bad input, a failed run, a run that was asked to stop."""

from collections.abc import Sequence


class InputError(ValueError):
    """Bad input: the message names the value and the cure; the command line exits with 2."""

    reported = False  # whether another rank or process prints the message


class RunError(RuntimeError):
    """A run that failed while running; the command line exits with 1."""

    reported = False


class Preempted(RunError):  # noqa: N818  # nothing went wrong
    """A run that was asked to stop, and whose state is saved; the command line exits with 143."""


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise an InputError that names the choices when `value` is none of them."""
    if value not in choices:
        raise InputError(f"{name} {value!r}: choose {' or '.join(choices)}")
