"""Evaluation tasks: texts, and what their embeddings score at every width.

A task is its texts and a pure function of their embeddings, so that one encoding serves every
width, and the same task scores raw truncations, a PCA of them, or a trained model.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mic.errors import InputError
from mic.metrics import nested_retrieval, nested_spearman
from mic.rows import Row, fingerprint, id_of, number_of, read_rows, text_of
from mic.settings import RetrievalFiles, Source, TasksConfig

Scores = dict[str, dict[int, float]]  # metric -> width -> value


@dataclass(frozen=True)
class Task:
    """`score(embeddings [texts, D], dims)` gives every metric at every width, times 100."""

    name: str
    texts: list[str]
    score: Callable[[Float[Tensor, "texts dim"], Sequence[int]], Scores]
    headline: str  # the metric that tables and figures show


def build_tasks(config: TasksConfig) -> list[Task]:
    """All tasks of a config, read and checked. Raises InputError naming file, row and cure."""
    return [
        *(similarity_task(name, source) for name, source in config.sts.items()),
        *(pairs_task(name, source) for name, source in config.pairs.items()),
        *(retrieval_task(name, files) for name, files in config.retrieval.items()),
    ]


def fingerprints(config: TasksConfig) -> dict[str, str]:
    """What every task's files held, by task (and file, where a task has several)."""
    single = {**config.sts, **config.pairs}
    found = {name: fingerprint(source) for name, source in single.items()}
    for name, files in config.retrieval.items():
        for part in ("corpus", "queries", "qrels"):
            found[f"{name}/{part}"] = fingerprint(Source(getattr(files, part)))
    return found


def similarity_task(name: str, source: Source) -> Task:
    """Spearman's correlation of cosine similarity with the scores of sentence pairs."""
    if len(source.columns) != 3:
        raise InputError(
            f"{source.path}: columns {source.columns}; name three: two texts and a score"
        )
    left, right, score = source.columns
    rows = list(read_rows(source))
    texts, index = unique(text_of(row, column) for column in (left, right) for row in rows)
    scores = [number_of(row, score) for row in rows]
    if len(set(scores)) < 2:
        raise InputError(f"{source.path}: column {score!r} never varies; nothing to correlate with")

    def spearman(embeddings: Tensor, dims: Sequence[int]) -> Scores:
        a, b = embeddings[index].chunk(2)
        return {"spearman": nested_spearman(a, b, scores, dims)}

    return Task(name, texts, spearman, "spearman")


def pairs_task(name: str, source: Source) -> Task:
    """Retrieval among the second column's texts by those of the first."""
    if len(source.columns) < 2:
        raise InputError(f"{source.path}: columns {source.columns}; name two: query and answer")
    query, answer = source.columns[:2]
    rows = [(text_of(row, query), text_of(row, answer)) for row in read_rows(source)]
    return retrieval_from_pairs(name, rows)


def retrieval_from_pairs(name: str, rows: Sequence[Sequence[str]]) -> Task:
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
    return ranking_task(name, queries, corpus, relevant, own)


def retrieval_task(name: str, files: RetrievalFiles) -> Task:
    """Corpus, queries and relevance judgements in BEIR's columns."""
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
    own = [corpus_ids.get(query) for query in judged]
    queries = [texts[query] for query in judged]
    return ranking_task(name, queries, corpus, list(judged.values()), own)


def document_text(row: Row) -> str:
    """A document's title and text, joined; collections hold documents without one or both."""
    given = [name for name in ("title", "text") if str(row.values.get(name) or "").strip()]
    return " ".join(text_of(row, name) for name in given)


def ranking_task(
    name: str,
    queries: list[str],
    corpus: list[str],
    relevant: list[dict[int, float]],
    own: list[int | None],
) -> Task:
    def rank(embeddings: Tensor, dims: Sequence[int]) -> Scores:
        asked, answers = embeddings[: len(queries)], embeddings[len(queries) :]
        return nested_retrieval(asked, answers, relevant, dims, own)

    return Task(name, queries + corpus, rank, "ndcg@10")


def unique(texts: Iterable[str]) -> tuple[list[str], list[int]]:
    """The distinct texts in order of appearance, and each text's place among them."""
    places: dict[str, int] = {}
    index = [places.setdefault(text, len(places)) for text in texts]
    return list(places), index
