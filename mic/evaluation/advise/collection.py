"""Read a user's corpus and queries, and relevance judgements if there are any."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mic.config.schema_data import Source
from mic.data.sources.files import (
    FORMATS,
    SourceRow,
    file_format,
    files_of,
    id_of,
    number_of,
    read_file,
    text_of,
)
from mic.errors import InputError
from mic.evaluation.tasks.relevance import document_text

DOCUMENTS, QUERIES = 100, 10  # at least: the 10 best of few, for few, say nothing
IDS = ("_id", "id")
QUERY_IDS = ("query_id", "query-id")  # ours, and BEIR's
DOCUMENT_IDS = ("doc_id", "corpus-id")
SCORES = ("score",)
TEXT = "text"


class Collection(NamedTuple):
    """Documents, queries and, if given, relevance judgements.

    `relevant` has for each query the gains of its documents, by their place in `documents`; None
    without relevance judgements. `identical` is the document that is the query itself, which is
    left out of the ranking. `left_out` counts the queries without a relevant document.
    """

    documents: list[str]
    queries: list[str]
    relevant: list[dict[int, float]] | None
    identical: list[int | None]
    left_out: int = 0


class Entry(NamedTuple):
    id: str | None
    text: str
    row: SourceRow


def read_collection(corpus: str, queries: str, qrels: str | None) -> Collection:
    """Read and check the files of corpus, queries and relevance judgements.

    Raises InputError naming file, row and cure: for files that are missing, empty, ragged or
    without the columns, ids that repeat or are unknown, too few texts.
    """
    documents = list(read_text_entries(corpus, "--corpus"))
    if len(documents) < DOCUMENTS:
        raise InputError(
            f"--corpus {corpus}: {len(documents)} documents; the 10 best of so few say nothing: "
            f"give at least {DOCUMENTS}"
        )
    query_entries = list(read_text_entries(queries, "--queries"))
    relevant, left_out = None, 0
    if qrels is not None:
        relevant_by_query = read_qrels(
            qrels, number_by_id(documents, corpus), number_by_id(query_entries, queries)
        )
        relevant = [relevant_by_query[row] for row in sorted(relevant_by_query)]
        left_out, query_entries = (
            len(query_entries) - len(relevant_by_query),
            [query_entries[row] for row in sorted(relevant_by_query)],
        )
    if len(query_entries) < QUERIES:
        count = f"{len(query_entries)} queries" + (f" with a document in {qrels}" if qrels else "")
        raise InputError(
            f"--queries {queries}: {count}; so few say nothing: give at least {QUERIES}"
        )
    places: dict[str, int] = {}
    for row, entry in enumerate(documents):
        places.setdefault(entry.text, row)
        places.setdefault(str(entry.row.values.get(TEXT)), row)  # without its title
    identical = [places.get(entry.text) for entry in query_entries]
    if relevant is not None:
        identical = [
            None if row in gains else row for row, gains in zip(identical, relevant, strict=True)
        ]
    return Collection(
        [entry.text for entry in documents],
        [entry.text for entry in query_entries],
        relevant,
        identical,
        left_out,
    )


def read_text_entries(path: str, option: str) -> Iterator[Entry]:
    """The texts of a corpus, title and text joined, or of queries, with their ids."""
    columns: list[str] = []
    for row in read_any(path, option):
        if not columns:
            columns = list(row.values)
            alone = columns[0] if len(columns) == 1 else TEXT
            column = TEXT if TEXT in columns else alone
            named = next((name for name in IDS if name in columns), None)
            if column not in columns:
                raise InputError(f"{file_name(row)}: no column {TEXT!r}; it has {columns}")
        try:
            whole = column == TEXT and option == "--corpus"
            text = document_text(row) if whole else text_of(row, column)
        except InputError as error:
            what = str(error).rpartition("; ")[0]
            raise InputError(f"{what}; mend the row, or remove it") from None
        yield Entry(None if named is None else id_of(row, named), text, row)


def read_any(path: str, option: str) -> Iterator[SourceRow]:
    """The rows of a file or a folder; of a text file its lines that are not blank."""
    if Path(path.removesuffix(".gz")).suffix == ".txt":
        if not Path(path).expanduser().is_file():
            raise InputError(f"{option} {path}: no such file (paths start at {Path.cwd()})")
        yield from read_file(Path(path).expanduser(), "txt")
        return
    files = files_of(Source(path))
    if files is None:
        raise InputError(f"{option} {path}: no such file (paths start at {Path.cwd()})")
    for file in files:
        if file_format(file) is None:
            named = ", .".join(FORMATS)
            raise InputError(f"{file}: unknown format; name it .{named} or .txt (or .gz)")
        yield from read_file(file)


def number_by_id(entries: Sequence[Entry], path: str) -> dict[str, int]:
    """The row number of every id. Raises InputError where ids are missing, or one repeats."""
    numbers: dict[str, int] = {}
    for number, entry in enumerate(entries):
        if entry.id is None:
            raise InputError(f"{path}: no column '_id', by which --qrels names its rows; add it")
        if numbers.setdefault(entry.id, number) != number:
            raise InputError(f"{entry.row.place}: _id {entry.id!r} repeats; give each row its own")
    return numbers


def read_qrels(
    path: str, documents: Mapping[str, int], queries: Mapping[str, int]
) -> dict[int, dict[int, float]]:
    """The documents with a score above 0 and their scores, by the row number of the query."""
    relevant: dict[int, dict[int, float]] = {}
    for row in read_any(path, "--qrels"):
        query = id_of(row, column_of(row, QUERY_IDS))
        document = id_of(row, column_of(row, DOCUMENT_IDS))
        gain = number_of(row, column_of(row, SCORES))
        for what, option, identifier, known in (
            ("query", "--queries", query, queries),
            ("document", "--corpus", document, documents),
        ):
            if identifier not in known:
                raise InputError(
                    f"{row.place}: {what} {identifier!r} is not in the file of {option}; remove "
                    "the row, or give the file that it was made for"
                )
        if gain > 0:
            relevant.setdefault(queries[query], {})[documents[document]] = gain
    if not relevant:
        raise InputError(f"--qrels {path}: no row with a score above 0")
    return relevant


def column_of(row: SourceRow, names: Sequence[str]) -> str:
    for name in names:
        if name in row.values:
            return name
    raise InputError(
        f"{file_name(row)}: no column {' or '.join(map(repr, names))}; it has {list(row.values)}"
    )


def file_name(row: SourceRow) -> str:
    return row.place.rpartition(": row")[0]
