"""Rows of text from files and data sets, with an error that names file, row and cure.

Files are jsonl, csv, tsv or parquet by their suffix, the first three also as .gz; anything else is
the name of a Hub data set, or `builtin:docstrings`.
"""

import csv
import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow
import pyarrow.parquet

from mic import docstrings
from mic.errors import InputError
from mic.settings import Source

FORMATS = ("jsonl", "csv", "tsv", "parquet")
BUILTIN = "builtin:docstrings"
OnBadRow = Literal["raise", "skip"]
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON may hold one; no tokenizer takes it


class Row(NamedTuple):
    place: str  # for messages: the file and the row's number, from 1
    values: Mapping[str, Any]


class Texts(NamedTuple):
    """The text columns of a source and how many rows were skipped for having none.

    `groups` has each row's group, where the source names a column of them.
    """

    rows: list[tuple[str, ...]]
    skipped: int
    groups: list[str] | None = None


def read_texts(source: Source, on_bad_row: OnBadRow = "raise") -> Texts:
    """The columns of a source as rows of texts.

    Raises InputError for a missing column or file, a file that is not what its name says, a row
    without text (skipped and counted when `on_bad_row` is "skip"), and a source without any row.
    """
    if not source.columns:
        raise InputError(
            f"{source.path}: no columns; set `columns`, for example [anchor, positive]"
        )
    texts: list[tuple[str, ...]] = []
    groups: list[str] = []
    skipped = 0
    for row in read_rows(source):
        try:
            found = tuple(text_of(row, column) for column in source.columns)
            groups += [id_of(row, source.group)] if source.group else []
            texts.append(found)
        except InputError:
            if on_bad_row == "raise":
                raise
            skipped += 1
    if not texts:
        raise InputError(f"{source.path}: no row with text in {source.columns}")
    return Texts(texts, skipped, groups if source.group else None)


def text_of(row: Row, column: str) -> str:
    """The text in a column of a row."""
    value = row.values.get(column)
    if isinstance(value, str) and value.strip() and not HALF_CHARACTER.search(value):
        return value
    found = "is empty" if value is None or value == "" else f"is {value!r:.40}, not text"
    raise InputError(
        f"{row.place}: column {column!r} {found}; mend the row or set data.on_bad_row=skip"
    )


def id_of(row: Row, column: str) -> str:
    """The identifier, a text or a whole number, in a column of a row."""
    value = row.values.get(column)
    if isinstance(value, str | int) and value != "":
        return str(value)
    raise InputError(f"{row.place}: column {column!r} is {value!r:.40}, no identifier; mend it")


def number_of(row: Row, column: str) -> float:
    """The finite number in a column of a row."""
    value = row.values.get(column)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{row.place}: column {column!r} is {value!r:.40}, not a number; mend it")
    return number


def read_rows(source: Source) -> Iterator[Row]:
    """The rows of a source, one by one, at most `source.limit`."""
    path = locate(source)
    rows = read_hub(source) if path is None else read_file(path)
    for index, row in enumerate(islice(rows, source.limit)):
        if index == 0:
            check_columns(row, [*source.columns, *([source.group] if source.group else [])])
        yield row


def locate(source: Source) -> Path | None:
    """The local file of a source; None when it is a data set of the Hub."""
    if source.path == BUILTIN:
        return docstrings.load(source.split)
    path = Path(source.path)
    if source.path.startswith("~/"):
        path = path.expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"{source.path}: is a folder; name one file in it")
    if file_format(path) or path.is_absolute() or source.path.startswith((".", "~")):
        raise InputError(f"{source.path}: no such file (paths start at {Path.cwd()})")
    return None


def file_format(path: Path) -> str | None:
    """The format that a file's name promises."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.removeprefix(".")
    return suffix if suffix in FORMATS else None


def check_columns(row: Row, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in row.values]
    if missing:
        place = row.place.rpartition(": row")[0]
        raise InputError(f"{place}: no column {missing[0]!r}; it has {list(row.values)}")


def read_file(path: Path) -> Iterator[Row]:
    """The rows of a file in the format of its name."""
    kind = file_format(path)
    if kind is None:
        raise InputError(f"{path}: unknown format; name it .{', .'.join(FORMATS)} (or .gz)")
    readers = {"jsonl": read_jsonl, "csv": read_csv, "tsv": read_csv, "parquet": read_parquet}
    number = 0
    try:
        for number, values in enumerate(readers[kind](path), 1):
            yield Row(f"{path}: row {number}", values)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        cure = "not a whole gzip file; fetch it again, or drop .gz from its name"
        raise InputError(f"{path}: after row {number}: {error}: {cure}") from None
    except UnicodeError:
        cure = "not UTF-8 text; convert the file with `iconv -t utf-8`"
        raise InputError(f"{path}: row {number + 1}: {cure}") from None
    except OSError as error:  # the system's, or pyarrow's for a damaged page
        raise InputError(
            f"{path}: after row {number}: not readable: {one_line(error)}; fetch it again"
        ) from None
    except (csv.Error, ValueError, RecursionError) as error:  # JSON's and pyarrow's are ValueErrors
        reason = one_line(error)
        raise InputError(
            f"{path}: row {number + 1}: not {kind} ({reason}); mend the row, or name the file "
            "after what it holds"
        ) from None
    if number == 0:
        raise InputError(f"{path}: empty; give a file with at least one row")


def one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "msg", error)).split())[:100]


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file; a UnicodeError at the first one that is not UTF-8."""
    opened = gzip.open if path.suffix == ".gz" else open
    # decoding strictly would fail a whole buffer before the line, and name the wrong row
    with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        for line in lines:
            line.encode()
            yield line


def read_jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    for line in read_lines(path):
        if not line.strip():
            continue
        values = json.loads(line)
        if not isinstance(values, dict):
            raise ValueError("the line is no JSON object")
        yield values


def read_csv(path: Path) -> Iterator[Mapping[str, Any]]:
    delimiter = "\t" if file_format(path) == "tsv" else ","
    for values in csv.DictReader(read_lines(path), delimiter=delimiter, strict=True):
        if None in values or None in values.values():
            raise csv.Error("its number of fields differs from the header's")
        yield values


def read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def read_hub(source: Source) -> Iterator[Row]:
    """The rows of a Hub data set's split."""
    from datasets import load_dataset

    try:
        found = load_dataset(source.path, split=source.split)
    except Exception as error:  # its own, the Hub client's, httpx's and the system's errors
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{source.path} (split {source.split}): neither a file nor a reachable Hub data set "
            f"({reason}); give a .jsonl, .csv, .tsv or .parquet file"
        ) from error
    for number, values in enumerate(found, 1):
        yield Row(f"{source.path}: row {number}", values)


def fingerprint(source: Source) -> str:
    """What the source held: the SHA-256 of its file, or the Hub data set's name and split."""
    path = locate(source)
    if path is None:
        return f"hub:{source.path}:{source.split}"
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
