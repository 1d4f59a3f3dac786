"""Read queries and their relevant documents, from pairs or from BEIR's three files."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mic.config.schema_data import RetrievalFiles, Source
from mic.data.sources.files import SourceRow, id_of, number_of, read_rows, text_of
from mic.errors import InputError


class Ranking(NamedTuple):
    """Queries and documents, and the relevance judgements.

    `relevant` has for each query the gains of its documents, by their place in `corpus`;
    `identical` the document that is the query itself, which is left out of the ranking.
    """

    queries: list[str]
    corpus: list[str]
    relevant: list[dict[int, float]]
    identical: list[int | None]


def read_pairs(source: Source) -> list[tuple[str, str]]:
    if len(source.columns) < 2:
        raise InputError(f"{source.path}: columns {source.columns}; name two: query and answer")
    query, answer = source.columns[:2]
    return [(text_of(row, query), text_of(row, answer)) for row in read_rows(source)]


def pairs_ranking(rows: Sequence[Sequence[str]]) -> Ranking:
    """Each distinct first text is a query, whose relevant documents are its second texts."""
    queries, query_ids = unique(row[0] for row in rows)
    corpus, answer_ids = unique(row[1] for row in rows)
    relevant: list[dict[int, float]] = [{} for _ in queries]
    for query, document in zip(query_ids, answer_ids, strict=True):
        relevant[query][document] = 1.0
    positions = {text: query for query, text in enumerate(corpus)}
    # a query that is also a document would rank itself first
    identical = [
        None if positions.get(text) in document else positions.get(text)
        for text, document in zip(queries, relevant, strict=True)
    ]
    return Ranking(queries, corpus, relevant, identical)


def read_ranking(files: RetrievalFiles) -> Ranking:
    """The queries with a relevant document, and all documents.

    A query that is itself a document, by id and text, is left out of its ranking. BEIR compares
    the id alone, which in some collections, such as Cranfield, is that of an unrelated document.
    """
    corpus_rows = list(read_rows(Source(files.corpus, ["_id", "text"])))
    corpus_ids = {id_of(row, "_id"): place for place, row in enumerate(corpus_rows)}
    if len(corpus_ids) < len(corpus_rows):
        repeats = len(corpus_rows) - len(corpus_ids)
        raise InputError(f"{files.corpus}: {repeats} rows repeat an _id; give each its own")
    corpus = [document_text(row) for row in corpus_rows]
    texts = {
        id_of(row, "_id"): text_of(row, "text")
        for row in read_rows(Source(files.queries, ["_id", "text"]))
    }
    relevant_by_query: dict[str, dict[int, float]] = {}
    for row in read_rows(Source(files.qrels, ["query_id", "doc_id", "score"])):
        query, document = id_of(row, "query_id"), id_of(row, "doc_id")
        gain = number_of(row, "score")
        if query not in texts or document not in corpus_ids:
            unknown = f"query {query!r}" if query not in texts else f"document {document!r}"
            raise InputError(
                f"{row.place}: {unknown} is not in the files beside it; remove the row"
            )
        if gain > 0:
            relevant_by_query.setdefault(query, {})[corpus_ids[document]] = gain
    if not relevant_by_query:
        raise InputError(f"{files.qrels}: no row with a score above 0")
    queries = [texts[query] for query in relevant_by_query]
    places = [corpus_ids.get(query) for query in relevant_by_query]
    identical = [
        place if place is not None and corpus[place].endswith(query) else None
        for place, query in zip(places, queries, strict=True)
    ]
    return Ranking(queries, corpus, list(relevant_by_query.values()), identical)


def document_text(row: SourceRow) -> str:
    """A document's title and text, joined; collections hold documents without one or both."""
    given = [name for name in ("title", "text") if str(row.values.get(name) or "").strip()]
    return " ".join(text_of(row, name) for name in given)


def unique(texts: Iterable[str]) -> tuple[list[str], list[int]]:
    """The distinct texts in order of appearance, and each text's place among them."""
    places: dict[str, int] = {}
    index = [places.setdefault(text, len(places)) for text in texts]
    return list(places), index
