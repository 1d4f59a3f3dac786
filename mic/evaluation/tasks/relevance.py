"""Queries and the documents that answer them: read from pairs, or from BEIR's three files."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mic.config.schema_data import RetrievalFiles, Source
from mic.data.sources.files import SourceRow, id_of, number_of, read_rows, text_of
from mic.errors import InputError


class Ranking(NamedTuple):
    """Queries and documents; of every query its documents' gains, and which document it is itself,
    if it is one: that is not to be found."""

    queries: list[str]
    corpus: list[str]
    relevant: list[dict[int, float]]
    own: list[int | None]


def read_pairs(source: Source) -> list[tuple[str, str]]:
    if len(source.columns) < 2:
        raise InputError(f"{source.path}: columns {source.columns}; name two: query and answer")
    query, answer = source.columns[:2]
    return [(text_of(row, query), text_of(row, answer)) for row in read_rows(source)]


def pairs_ranking(rows: Sequence[Sequence[str]]) -> Ranking:
    """Every distinct first text looks for its second texts among all distinct ones."""
    queries, query_ids = unique(row[0] for row in rows)
    corpus, answer_ids = unique(row[1] for row in rows)
    relevant: list[dict[int, float]] = [{} for _ in queries]
    for at, found in zip(query_ids, answer_ids, strict=True):
        relevant[at][found] = 1.0
    positions = {text: at for at, text in enumerate(corpus)}
    # a query that is also a document would find itself first
    own = [
        None if positions.get(text) in found else positions.get(text)
        for text, found in zip(queries, relevant, strict=True)
    ]
    return Ranking(queries, corpus, relevant, own)


def read_ranking(files: RetrievalFiles) -> Ranking:
    """The queries with a relevant document, and all documents.

    A query that is itself a document, by its id and its text, does not find itself. BEIR goes by
    the id alone, which in some collections, as Cranfield, is that of an unrelated document.
    """
    corpus_rows = list(read_rows(Source(files.corpus, ["_id", "text"])))
    corpus_ids = {id_of(row, "_id"): at for at, row in enumerate(corpus_rows)}
    if len(corpus_ids) < len(corpus_rows):
        repeats = len(corpus_rows) - len(corpus_ids)
        raise InputError(f"{files.corpus}: {repeats} rows repeat an _id; give each its own")
    corpus = [document_text(row) for row in corpus_rows]
    texts = {
        id_of(row, "_id"): text_of(row, "text")
        for row in read_rows(Source(files.queries, ["_id", "text"]))
    }
    judged: dict[str, dict[int, float]] = {}
    for row in read_rows(Source(files.qrels, ["query_id", "doc_id", "score"])):
        query, document = id_of(row, "query_id"), id_of(row, "doc_id")
        gain = number_of(row, "score")
        if query not in texts or document not in corpus_ids:
            unknown = f"query {query!r}" if query not in texts else f"document {document!r}"
            raise InputError(
                f"{row.place}: {unknown} is not in the files beside it; remove the row"
            )
        if gain > 0:
            judged.setdefault(query, {})[corpus_ids[document]] = gain
    if not judged:
        raise InputError(f"{files.qrels}: no row with a score above 0")
    queries = [texts[query] for query in judged]
    places = [corpus_ids.get(query) for query in judged]
    own = [
        at if at is not None and corpus[at].endswith(query) else None
        for at, query in zip(places, queries, strict=True)
    ]
    return Ranking(queries, corpus, list(judged.values()), own)


def document_text(row: SourceRow) -> str:
    """A document's title and text, joined; collections hold documents without one or both."""
    given = [name for name in ("title", "text") if str(row.values.get(name) or "").strip()]
    return " ".join(text_of(row, name) for name in given)


def unique(texts: Iterable[str]) -> tuple[list[str], list[int]]:
    """The distinct texts in order of appearance, and each text's place among them."""
    places: dict[str, int] = {}
    index = [places.setdefault(text, len(places)) for text in texts]
    return list(places), index
