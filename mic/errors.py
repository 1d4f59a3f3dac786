"""The two ways a command ends badly: the input was wrong, or the run failed."""

from collections.abc import Sequence


class InputError(ValueError):
    """Bad input: the message names the value and the cure; the command line exits with 2."""


class RunError(RuntimeError):
    """A run that failed while running; the command line exits with 1."""


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise a ValueError that names the choices when `value` is none of them."""
    if value not in choices:
        raise InputError(f"{name} {value!r}: choose {' or '.join(choices)}")
