"""Turn a source's rows into training examples: their texts and group; leave out unusable rows."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

import xxhash

from mic.config.schema_data import CorpusConfig
from mic.data.sources.files import SourceRow, id_of, number_of, read_rows, text_of
from mic.errors import InputError

OnBadRow = Literal["raise", "skip"]
Kind = Literal["single", "pair", "triplet", "scored", "labelled"]
BAD, LOW, SHORT, LONG, REPEATED = "unusable", "score too low", "too short", "too long", "repeated"


class Example(NamedTuple):
    """A row's texts, and the hash of its group or label, where it has one."""

    texts: tuple[str, ...]
    group: int | None


def read_examples(
    source: CorpusConfig, on_bad_row: OnBadRow, counts: Counter[str]
) -> Iterator[Example]:
    """The examples of a source; `counts` gets the rows "read" and those dropped, by reason.

    Raises InputError, naming file, row and cure, for a missing column or file, a file that is not
    what its name says, and a row without text, group or number (unless `on_bad_row` is "skip").
    """
    kind_of(source)
    seen: set[int] = set()
    for row in read_rows(replace(source, columns=columns_read(source))):
        counts["read"] += 1
        example, reason = check_row(row, source, on_bad_row)
        if example is not None and source.deduplicate:
            row_hash = hash_text("\0".join(example.texts))
            reason = reason or (REPEATED if row_hash in seen else None)
            seen.add(row_hash)
        if example is not None and reason is None:
            yield example
        else:
            counts[reason or BAD] += 1


def columns_read(source: CorpusConfig) -> list[str]:
    """Every column that a row must have."""
    return [*source.columns, *filter(None, (source.group, source.label, source.score))]


def check_row(
    row: SourceRow, source: CorpusConfig, on_bad_row: OnBadRow
) -> tuple[Example | None, str | None]:
    """The example of a row, and why it is left out; None for one that stays."""
    try:
        example = example_of(row, source)
        return example, drop_reason(row, example, source)
    except InputError:
        if on_bad_row == "raise":
            raise
        return None, BAD


def example_of(row: SourceRow, source: CorpusConfig) -> Example:
    column = source.group or source.label
    texts = tuple(text_of(row, name) for name in source.columns)
    return Example(texts, hash_text(f"group\0{id_of(row, column)}") if column else None)


def drop_reason(row: SourceRow, example: Example, source: CorpusConfig) -> str | None:
    """Why a row is left out; None for one that stays."""
    lengths = [len(text) for text in example.texts]
    if min(lengths) < source.min_characters:
        return SHORT
    if source.max_characters is not None and max(lengths) > source.max_characters:
        return LONG
    if source.score and number_of(row, source.score) < source.min_score:
        return LOW
    return None


def kind_of(source: CorpusConfig) -> Kind:
    """The kind of a source's rows. Raises InputError for columns that make none."""
    if not source.columns:
        raise InputError(
            f"{source.path}: no columns; set `columns`, for example [anchor, positive]"
        )
    if source.label:
        if source.group or len(source.columns) > 1:
            raise InputError(
                f"{source.path}: label={source.label!r} with columns {source.columns}; a labelled "
                "text has one column, and its label is its group"
            )
        return "labelled"
    if source.score:
        if len(source.columns) < 2:
            raise InputError(
                f"{source.path}: score={source.score!r} with columns {source.columns}; a scored "
                "pair has two"
            )
        return "scored"
    kinds: list[Kind] = ["single", "pair", "triplet"]
    return kinds[min(len(source.columns), 3) - 1]


def hash_text(text: str) -> int:
    """A text's hash of 64 bits; of two different texts it is the same with probability 2^-64."""
    return xxhash.xxh3_64_intdigest(text.encode())
