"""Write lists of widths in a sentence."""

from collections.abc import Sequence


def listed(dims: Sequence[int]) -> str:
    return ", ".join(map(str, dims))
