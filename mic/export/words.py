"""Markdown."""

from collections.abc import Sequence
from itertools import zip_longest


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, columns of figures to the right.

    >>> print(table(["", "16"], [["mic", "32.2"]]))
    | | 16 |
    |---|---:|
    | mic | 32.2 |
    """
    columns = zip_longest(*rows, fillvalue="")
    rule = "|".join("---:" if all(map(figure, column)) else "---" for column in columns)
    lines = [line(head), f"|{rule}|", *map(line, rows)]
    return "\n".join(lines)


def line(cells: Sequence[str]) -> str:
    inner = "|".join(f" {cell} " if cell else " " for cell in cells)
    return f"|{inner}|"


def figure(cell: str) -> bool:
    """Whether a cell is a number, be it with an interval, or stands for one that is not there.

    >>> [figure(cell) for cell in ("1,024", "6.0e-08", "72.9%", "61.5 ± 0.3", "-", "mic", "")]
    [True, True, True, True, True, False, False]
    """
    try:
        float(cell.partition(" ± ")[0].replace(",", "").removesuffix("%"))
    except ValueError:
        return cell == "-"
    return True


def listed(dims: Sequence[int]) -> str:
    return ", ".join(map(str, dims))
