"""Read and check labelled texts, and pairs of texts that match or do not."""

from collections.abc import Sequence
from typing import NamedTuple

from mic.config.schema_data import ClassificationFiles, Source
from mic.data.sources.files import SourceRow, read_rows, text_of
from mic.errors import InputError

MATCHES = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0}  # csv files know no types


class Labelled(NamedTuple):
    text: str
    label: str
    place: str  # for messages: the file and the row's number


class LabelledPair(NamedTuple):
    left: str
    right: str
    label: int  # 1: the two match


def label_of(row: SourceRow, column: str) -> str:
    """The label in a column of a row: a text, a whole number (1.0 is 1) or a truth value, as text.

    >>> [label_of(SourceRow("", {"label": value}), "label") for value in ("spam", 1, 1.0, True)]
    ['spam', '1', '1', 'True']
    """
    value = row.get(column)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int) and str(value).strip():
        return str(value)
    raise InputError(
        f"{row.place}: column {column!r} is {value!r:.40}, no label; give the row a text or a "
        "whole number, or remove it"
    )


def read_labelled(source: Source) -> list[Labelled]:
    """Texts with their labels, of two labels at least.

    Raises InputError for columns that are not two, a row without text or label, a single label.
    """
    if len(source.columns) != 2:
        raise InputError(f"{source.path}: columns {source.columns}; name two: a text and its label")
    text, label = source.columns
    rows = [
        Labelled(text_of(row, text), label_of(row, label), row.place) for row in read_rows(source)
    ]
    refuse_one_label(source, [row.label for row in rows])
    return rows


def read_labelled_pairs(source: Source) -> list[LabelledPair]:
    """Pairs of texts with 1 where they match and 0 where they do not, both present.

    Raises InputError for columns that are not three, a row without text, another label.
    """
    if len(source.columns) != 3:
        raise InputError(
            f"{source.path}: columns {source.columns}; name three: two texts and a label of 0 or 1"
        )
    left, right, label = source.columns
    rows = [
        LabelledPair(text_of(row, left), text_of(row, right), match_of(row, label))
        for row in read_rows(source)
    ]
    refuse_one_label(source, [row.label for row in rows])
    return rows


def match_of(row: SourceRow, column: str) -> int:
    """1 or 0, also written as 1.0, "1", "1.0", true or "True"."""
    label = label_of(row, column)
    if label.lower() not in MATCHES:
        raise InputError(
            f"{row.place}: column {column!r} is {label!r:.40}; write 1 for a pair that matches, "
            "0 for one that does not"
        )
    return MATCHES[label.lower()]


def refuse_one_label(source: Source, labels: Sequence[str | int]) -> None:
    distinct = set(labels)
    if len(distinct) < 2:
        only = f"no label but {distinct.pop()!r:.40}" if distinct else "no row"
        cure = "read rows of two labels or more (a limit keeps the top of a file: is it sorted?)"
        raise InputError(f"{source.path}: column {source.columns[-1]!r} has {only}; {cure}")


def refuse_unique_labels(source: Source, rows: Sequence[Labelled]) -> None:
    """Refuse to group texts of which no two belong together, as where an id is named a label."""
    if len({row.label for row in rows}) == len(rows):
        raise InputError(
            f"{source.path}: column {source.columns[-1]!r} has another label in every row; name "
            "the column of the labels"
        )


def refuse_strange_labels(
    files: ClassificationFiles, train: Sequence[Labelled], test: Sequence[Labelled]
) -> None:
    """Refuse a test that is mostly about labels that training never has.

    A few of them are part of some data sets. Where they are most, the files name their labels in
    two ways, or a limit cut a sorted file, and the score would be about that.
    """
    known = {row.label for row in train}
    strange = [row for row in test if row.label not in known]
    if 2 * len(strange) > len(test):
        raise InputError(
            f"{strange[0].place}: label {strange[0].label!r:.40} is in no row read from "
            f"{files.train.path}, nor are the labels of {len(strange):,} in {len(test):,} test "
            "rows; write labels alike in both files, and raise a limit that cuts a sorted file"
        )
