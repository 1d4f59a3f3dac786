"""The two ways a command ends badly: the input was wrong, or the run failed."""


class InputError(ValueError):
    """Bad input: the message names the value and the cure; the command line exits with 2."""


class RunError(RuntimeError):
    """A run that failed while running; the command line exits with 1."""
