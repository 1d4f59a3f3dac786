"""A user's corpus and queries, and which documents answer which query, if anybody knows."""

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
    """What is searched, by what, and what should be found.

    `relevant` maps the numbers of the documents that answer a query to their gain; None where
    nobody judged. `own` is the document that a query is itself: it is passed over. `left_out` are
    queries that have no judged document.
    """

    documents: list[str]
    queries: list[str]
    relevant: list[dict[int, float]] | None
    own: list[int | None]
    left_out: int = 0


class Entry(NamedTuple):
    id: str | None
    text: str
    row: SourceRow


def read_collection(corpus: str, queries: str, qrels: str | None) -> Collection:
    """Read and check all files.

    Raises InputError naming file, row and cure: for files that are not there, empty, ragged or
    without the columns, ids that repeat or are judged and not there, too few texts.
    """
    documents = list(read_entries(corpus, "--corpus"))
    if len(documents) < DOCUMENTS:
        raise InputError(
            f"--corpus {corpus}: {len(documents)} documents; the 10 best of so few say nothing: "
            f"give at least {DOCUMENTS}"
        )
    asked = list(read_entries(queries, "--queries"))
    relevant, left_out = None, 0
    if qrels is not None:
        judged = read_judgements(qrels, numbers(documents, corpus), numbers(asked, queries))
        relevant = [judged[at] for at in sorted(judged)]
        left_out, asked = len(asked) - len(judged), [asked[at] for at in sorted(judged)]
    if len(asked) < QUERIES:
        told = f"{len(asked)} queries" + (f" with a document in {qrels}" if qrels else "")
        raise InputError(
            f"--queries {queries}: {told}; so few say nothing: give at least {QUERIES}"
        )
    places: dict[str, int] = {}
    for at, one in enumerate(documents):
        places.setdefault(one.text, at)
        places.setdefault(str(one.row.values.get(TEXT)), at)  # without its title
    own = [places.get(one.text) for one in asked]
    if relevant is not None:
        own = [None if at in found else at for at, found in zip(own, relevant, strict=True)]
    return Collection(
        [one.text for one in documents], [one.text for one in asked], relevant, own, left_out
    )


def read_entries(path: str, option: str) -> Iterator[Entry]:
    """The texts of a corpus, title and text joined, or of queries, with their ids."""
    columns: list[str] = []
    for row in read_any(path, option):
        if not columns:
            columns = list(row.values)
            alone = columns[0] if len(columns) == 1 else TEXT
            column = TEXT if TEXT in columns else alone
            named = next((name for name in IDS if name in columns), None)
            if column not in columns:
                raise InputError(f"{file_of(row)}: no column {TEXT!r}; it has {columns}")
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


def numbers(entries: Sequence[Entry], path: str) -> dict[str, int]:
    """The number of every id. Raises InputError where there are none, or one is there twice."""
    found: dict[str, int] = {}
    for at, one in enumerate(entries):
        if one.id is None:
            raise InputError(f"{path}: no column '_id', by which --qrels names its rows; add it")
        if found.setdefault(one.id, at) != at:
            raise InputError(f"{one.row.place}: _id {one.id!r} is there already; give it its own")
    return found


def read_judgements(
    path: str, documents: Mapping[str, int], queries: Mapping[str, int]
) -> dict[int, dict[int, float]]:
    """The documents with a score above 0 and their scores, by the number of the query."""
    found: dict[int, dict[int, float]] = {}
    for row in read_any(path, "--qrels"):
        query = id_of(row, column_of(row, QUERY_IDS))
        document = id_of(row, column_of(row, DOCUMENT_IDS))
        gain = number_of(row, column_of(row, SCORES))
        for what, option, one, known in (
            ("query", "--queries", query, queries),
            ("document", "--corpus", document, documents),
        ):
            if one not in known:
                raise InputError(
                    f"{row.place}: {what} {one!r} is not in the file of {option}; remove the row, "
                    "or give the file that it was judged on"
                )
        if gain > 0:
            found.setdefault(queries[query], {})[documents[document]] = gain
    if not found:
        raise InputError(f"--qrels {path}: no row with a score above 0")
    return found


def column_of(row: SourceRow, names: Sequence[str]) -> str:
    for name in names:
        if name in row.values:
            return name
    raise InputError(
        f"{file_of(row)}: no column {' or '.join(map(repr, names))}; it has {list(row.values)}"
    )


def file_of(row: SourceRow) -> str:
    return row.place.rpartition(": row")[0]
