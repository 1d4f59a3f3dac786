"""What the command line's words may be."""

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
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= 1:
        hint = f"; for {found:g} % write {found / 100:g}" if 1 < found <= 100 else ""
        raise argparse.ArgumentTypeError(f"{text}: a share above 0 and at most 1, as 0.99{hint}")
    return found


def widths(text: str) -> list[int]:
    """One width or more.

    >>> widths("64"), widths("16,32")
    ([64], [16, 32])
    """
    words = text.split(",")
    found = [int(one) for one in words if one.isdecimal()]
    if len(found) < len(words) or found[0] < 1 or found != sorted(set(found)):
        raise argparse.ArgumentTypeError(f"{text}: widths that increase, as 16,64,384")
    return found


def dims(text: str) -> list[int]:
    """Widths as one writes them.

    >>> dims("16,64")
    [16, 64]
    """
    found = widths(text)
    if len(found) < 2:
        raise argparse.ArgumentTypeError(f"{text}: two widths or more that increase, as 16,64,384")
    return found


def names(text: str) -> list[str]:
    """Names, each once, as one writes them.

    >>> names("STS12,SICK-R")
    ['STS12', 'SICK-R']
    """
    found = [one.strip() for one in text.split(",")]
    if "" in found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text}: names that differ, as STS12,SICK-R")
    return found
