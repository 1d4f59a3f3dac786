"""Types of command-line arguments, and what several commands share."""

import argparse


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number, 1 or more")
    return int(text)


def share(text: str) -> float:
    """A share of a whole: above 0, at most 1.

    >>> share("0.99")
    0.99
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        hint = f"; for {value:g} % write {value / 100:g}" if 1 < value <= 100 else ""
        raise argparse.ArgumentTypeError(f"{text}: a share above 0 and at most 1, as 0.99{hint}")
    return value


def widths(text: str) -> list[int]:
    """One width or more.

    >>> widths("64"), widths("16,32")
    ([64], [16, 32])
    """
    items = text.split(",")
    numbers = [int(item) for item in items if item.isdecimal()]
    if len(numbers) < len(items) or numbers[0] < 1 or numbers != sorted(set(numbers)):
        raise argparse.ArgumentTypeError(f"{text}: widths that increase, as 16,64,384")
    return numbers


def several_widths(text: str) -> list[int]:
    """Two widths or more.

    >>> several_widths("16,64")
    [16, 64]
    """
    numbers = widths(text)
    if len(numbers) < 2:
        raise argparse.ArgumentTypeError(f"{text}: two widths or more that increase, as 16,64,384")
    return numbers


def names(text: str) -> list[str]:
    """Different names, separated by commas.

    >>> names("STS12,SICK-R")
    ['STS12', 'SICK-R']
    """
    items = [item.strip() for item in text.split(",")]
    if "" in items or len(set(items)) < len(items):
        raise argparse.ArgumentTypeError(f"{text}: names that differ, as STS12,SICK-R")
    return items


def silence_libraries() -> None:
    """Turn off routine messages of Lightning and torch, which would hide those of mic."""
    import logging
    import warnings

    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="lightning")
    warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")


def add_trust_remote_code(parser: argparse.ArgumentParser) -> None:
    """The option without which no Python code of a model's folder is run."""
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the Python code that comes with MODEL (a run's config says it for the run)",
    )
