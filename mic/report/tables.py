"""Write tables as Markdown and for the terminal: the one place for both."""

from collections.abc import Collection, Sequence
from itertools import zip_longest
from typing import NamedTuple

from rich.table import Table as RichTable


class Table(NamedTuple):
    """A title, a head, and rows of text whose first cell is their name."""

    title: str
    head: list[str]
    rows: list[list[str]]


def rich_table(
    table: Table,
    left: Collection[str] = (),
    no_wrap: Collection[str] = (),
    caption: str | None = None,
) -> RichTable:
    """A table for the terminal, whose cells may hold rich's markup.

    The first column and those with a head in `left` are aligned to the left, the others to the
    right. Columns with a head in `no_wrap` keep their cells on one line.
    """
    result = RichTable(title=table.title, title_justify="left", caption=caption)
    for number, head in enumerate(table.head):
        to_the_left = number == 0 or head in left
        result.add_column(head, justify="left" if to_the_left else "right", no_wrap=head in no_wrap)
    for cells in table.rows:
        result.add_row(*cells)
    return result


def titled_markdown(table: Table) -> str:
    """A Markdown table below its title in bold."""
    return f"**{table.title}**\n\n{markdown_table(table.head, table.rows)}"


def markdown_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool] | None = None
) -> str:
    """A Markdown table; `right` says of each column whether it is aligned to the right.

    Without `right` all columns but the first are.

    >>> print(markdown_table(["", "16"], [["mic", "32.2"]]))
    |  | 16 |
    | --- | ---: |
    | mic | 32.2 |
    """
    right = [number > 0 for number in range(len(head))] if right is None else right
    rule = ["---:" if to_the_right else "---" for to_the_right in right]
    return "\n".join(map(markdown_row, [head, rule, *rows]))


def numeric_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns of numbers are aligned to the right.

    >>> print(numeric_markdown(["key", "value", "n"], [["seed", "none", "3"]]))
    | key | value | n |
    | --- | --- | ---: |
    | seed | none | 3 |
    """
    return markdown_table(head, rows, numeric_columns(rows))


def padded_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of even width, to be read as plain text too.

    >>> print(padded_markdown(["name", "rows"], [["a", "12,345"]]))
    | name | rows   |
    | ---- | ------ |
    | a    | 12,345 |
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    padded = ([cell.ljust(n) for cell, n in zip(cells, widths, strict=True)] for cells in lines)
    return "\n".join(map(markdown_row, padded))


def markdown_row(cells: Sequence[str]) -> str:
    """One line of a Markdown table.

    >>> print(markdown_row(["a", "b|c"]))
    | a | b\\|c |
    """
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def numeric_columns(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Of each column whether all of its cells are numbers.

    >>> numeric_columns([["mic", "32.2 ± 0.3"], ["raw", "-"]])
    [False, True]
    """
    columns = zip_longest(*rows, fillvalue="")
    return [all(map(is_number, column)) for column in columns]


def is_number(cell: str) -> bool:
    """Whether a cell is a number, be it with an interval, or stands for a missing one.

    >>> [is_number(cell) for cell in ("1,024", "6.0e-08", "72.9%", "61.5 ± 0.3", "-", "mic", "")]
    [True, True, True, True, True, False, False]
    """
    try:
        float(cell.partition(" ± ")[0].replace(",", "").removesuffix("%"))
    except ValueError:
        return cell == "-"
    return True
