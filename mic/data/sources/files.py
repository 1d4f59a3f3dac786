"""Read rows from files and Hub data sets, with errors that name file, row and cure.

Files are jsonl, csv, tsv or parquet by their suffix, the first three also as .gz; a folder or a
glob stands for the files in it, by name. Anything else is the name of a Hub data set, or
`builtin:docstrings`.
"""

import csv
import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from glob import glob
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from mic.config.schema_data import Source
from mic.data.sources import docstrings
from mic.errors import InputError
from mic.files import sha256

FORMATS = ("jsonl", "csv", "tsv", "parquet")
BUILTIN = "builtin:docstrings"
LONGEST = 1_000_000  # characters of one text: more is a file read as a row
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON may hold one; no tokenizer takes it


class SourceRow(NamedTuple):
    """A row as it is read: its values by column."""

    place: str  # for messages: the file and the row's number, from 1
    values: Mapping[str, Any]

    def get(self, column: str) -> Any:
        """A column's value, or, for `a.b.0`, what nested objects and lists hold there; else None.

        >>> SourceRow("", {"lemmas": ["cat", "feline"]}).get("lemmas.0")
        'cat'
        """
        if column in self.values:
            return self.values[column]
        value: Any = self.values
        for name in column.split("."):
            if isinstance(value, Mapping):
                value = value.get(name)
            elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
                value = value[int(name)]
            else:
                return None
        return value


def text_of(row: SourceRow, column: str) -> str:
    """The text in a column of a row."""
    value = row.get(column)
    if isinstance(value, str) and len(value) > LONGEST:
        raise InputError(
            f"{row.place}: column {column!r} has {len(value):,} characters, above {LONGEST:,}; cut "
            "the row into passages, or set data.on_bad_row=skip"
        )
    if isinstance(value, str) and value.strip() and not HALF_CHARACTER.search(value):
        return value
    problem = "is empty" if value is None or value == "" else f"is {value!r:.40}, not text"
    raise InputError(
        f"{row.place}: column {column!r} {problem}; mend the row or set data.on_bad_row=skip"
    )


def id_of(row: SourceRow, column: str) -> str:
    """The identifier, a text or a whole number, in a column of a row."""
    value = row.get(column)
    if isinstance(value, str | int) and value != "":
        return str(value)
    raise InputError(f"{row.place}: column {column!r} is {value!r:.40}, no identifier; mend it")


def number_of(row: SourceRow, column: str) -> float:
    """The finite number in a column of a row."""
    value = row.get(column)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{row.place}: column {column!r} is {value!r:.40}, not a number; mend it")
    return number


def read_rows(source: Source) -> Iterator[SourceRow]:
    """The rows of a source that match `source.where`, one by one, at most `source.limit`."""
    files = files_of(source)
    readers = [read_hub(source)] if files is None else map(read_file, files)
    columns = [*source.columns, *source.where]
    rows = chain.from_iterable(require_columns(reader, columns) for reader in readers)
    return islice(matching_rows(rows, source) if source.where else rows, source.limit)


def matching_rows(rows: Iterator[SourceRow], source: Source) -> Iterator[SourceRow]:
    """The rows whose columns have the values of `source.where`, of which there must be one."""
    seen: dict[str, set[str]] = {column: set() for column in source.where}
    matched = False
    for row in rows:
        values = {column: str(row.get(column)) for column in source.where}
        if values == source.where:
            matched = True
            yield row
        elif not matched:
            for column, value in values.items():
                seen[column].add(value)
    if not matched:
        present = "; ".join(f"{column} is {list_some(values)}" for column, values in seen.items())
        raise InputError(f"{source.path}: no row is as where={dict(source.where)} says: {present}")


def list_some(values: Collection[str]) -> str:
    """The values as a phrase: the first three, and how many others.

    >>> list_some({"b", "a", "e", "d", "c"})
    'a, b, c or 2 others'
    """
    shown = ", ".join(f"{value:.40}" for value in sorted(values)[:3])
    return shown if len(values) <= 3 else f"{shown} or {len(values) - 3:,} others"


def files_of(source: Source) -> list[Path] | None:
    """The local files of a source, by name; None when it is a data set of the Hub."""
    if source.path == BUILTIN:
        return [docstrings.load_docstrings(source.split)]
    path = Path(source.path)
    if source.path.startswith("~/"):
        path = path.expanduser()
    if path.is_file():
        return [path]
    pattern = path / "*" if path.is_dir() else path
    if path.is_dir() or any(sign in source.path for sign in "*?["):
        # Path.glob takes no absolute pattern
        paths = map(Path, sorted(glob(str(pattern), recursive=True)))  # noqa: PTH207
        files = [file for file in paths if file.is_file() and file_format(file)]
        if files:
            return files
        raise InputError(
            f"{source.path}: no .{', .'.join(FORMATS)} file (or .gz) there (paths start at "
            f"{Path.cwd()})"
        )
    if file_format(path) or path.is_absolute() or source.path.startswith((".", "~")):
        raise InputError(f"{source.path}: no such file (paths start at {Path.cwd()})")
    return None


def file_format(path: Path) -> str | None:
    """The format that a file's name promises."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.removeprefix(".")
    return suffix if suffix in FORMATS else None


def require_columns(rows: Iterator[SourceRow], columns: Sequence[str]) -> Iterator[SourceRow]:
    """The rows of a file whose first one has all the columns; later gaps are single bad rows."""
    for index, row in enumerate(rows):
        missing = [
            column
            for column in columns
            if column not in row.values and column.partition(".")[0] not in row.values
        ]
        if missing and index == 0:
            place = row.place.rpartition(": row")[0]
            raise InputError(f"{place}: no column {missing[0]!r}; it has {list(row.values)}")
        yield row


def read_file(path: Path, kind: str | None = None) -> Iterator[SourceRow]:
    """The rows of a file in the format of its name; as "txt", its lines are their column text."""
    kind = kind or file_format(path)
    if kind is None:
        raise InputError(f"{path}: unknown format; name it .{', .'.join(FORMATS)} (or .gz)")
    readers = {"jsonl": read_jsonl, "csv": read_csv, "tsv": read_csv, "parquet": read_parquet}
    readers["txt"] = read_text
    number = 0
    try:
        for number, values in enumerate(readers[kind](path), 1):
            yield SourceRow(f"{path}: row {number}", values)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        cure = "not a whole gzip file; fetch it again, or drop .gz from its name"
        raise InputError(f"{path}: after row {number}: {error}: {cure}") from None
    except UnicodeError:
        cure = "not UTF-8 text; convert the file with `iconv -t utf-8`"
        raise InputError(f"{path}: row {number + 1}: {cure}") from None
    except OSError as error:  # the system's, or pyarrow's for a damaged page
        raise InputError(
            f"{path}: after row {number}: not readable: {short_reason(error)}; fetch it again"
        ) from None
    except (csv.Error, ValueError, RecursionError) as error:  # JSON's and pyarrow's are ValueErrors
        reason = short_reason(error)
        raise InputError(
            f"{path}: row {number + 1}: not {kind} ({reason}); mend the row, or name the file "
            "after what it holds"
        ) from None
    if number == 0:
        raise InputError(f"{path}: empty; give a file with at least one row")


def short_reason(error: Exception) -> str:
    """The message of an error on one line of at most 100 characters."""
    return " ".join(str(getattr(error, "msg", error)).split())[:100]


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file; a UnicodeError at the first one that is not UTF-8."""
    opened = gzip.open if path.suffix == ".gz" else open
    # decoding strictly would fail a whole buffer before the line, and name the wrong row
    with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        for line in lines:
            line.encode()
            yield line


def read_text(path: Path) -> Iterator[Mapping[str, Any]]:
    for line in read_lines(path):
        if line.strip():
            yield {"text": line.rstrip("\r\n")}


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


def read_hub(source: Source) -> Iterator[SourceRow]:
    """The rows of a Hub data set's split."""
    for number, values in enumerate(load_hub(source), 1):
        yield SourceRow(f"{source.path}: row {number}", values)


def load_hub(source: Source, streaming: bool = False) -> Any:
    """The `datasets` data set that a source names."""
    from datasets import load_dataset

    try:
        return load_dataset(
            source.path,
            source.subset,
            split=source.split,
            revision=source.revision,
            streaming=streaming,
        )
    except Exception as error:  # its own, the Hub client's, httpx's and the system's errors
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{source.path} (split {source.split}): neither a file nor a reachable Hub data set "
            f"({reason}); give a .jsonl, .csv, .tsv or .parquet file"
        ) from error


def source_fingerprint(source: Source) -> str:
    """The SHA-256 of the source's file or files, or the name of its Hub data set."""
    files = files_of(source)
    if files is None:
        names = (source.path, source.subset, source.split, source.revision)
        return ":".join(["hub", *filter(None, names)])
    hashes = [sha256(file) for file in files]
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
