"""Build evaluation tasks: texts, and how their embeddings are scored at every width.

A task is its texts and a pure function of their embeddings, so that one encoding serves every
width, and the same task scores raw truncations, a PCA of them, or a trained model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from jaxtyping import Num
from torch import Tensor

from mic.config.schema_data import (
    ClassificationFiles,
    PairClassificationFiles,
    RetrievalFiles,
    Source,
    TasksConfig,
)
from mic.data.sources.files import number_of, read_rows, source_fingerprint, text_of
from mic.distributed.environment import accelerator
from mic.encoder.embedding_file import Vectors
from mic.errors import InputError
from mic.evaluation.tasks.labels import (
    LabelledPair,
    read_labelled,
    read_labelled_pairs,
    refuse_strange_labels,
    refuse_unique_labels,
)
from mic.evaluation.tasks.relevance import Ranking, pairs_ranking, read_pairs, read_ranking, unique
from mic.metrics import NestedRetrieval, nested_spearman
from mic.metrics.bootstrap import Items, Statistic
from mic.metrics.classification import (
    LabelledPairs,
    answer_scores,
    nested_answers,
    nested_average_precision,
    nested_pair_accuracy,
    nested_v_measure,
)
from mic.metrics.moments import exact_device
from mic.metrics.retrieval import CHUNK
from mic.nested import paired_cosines

TaskScores = dict[str, dict[int, float]]  # metric -> width -> value


class TaskResult(NamedTuple):
    """Every metric at every width, times 100, and the items of the headline metric, if any."""

    scores: TaskScores
    items: Items | None = None


@dataclass(frozen=True)
class Task:
    """Texts, and `evaluate(embeddings [texts, D], dims)`, which scores their embeddings.

    `evaluated` are the test texts, each once, which no training may use. The documents of a
    retrieval task are not among them, nor are `fitted`, the texts that a classifier or a threshold
    is fitted on.
    """

    name: str
    texts: list[str]
    evaluate: Callable[[Vectors, Sequence[int]], TaskResult]
    headline: str  # the metric that tables and figures show
    evaluated: list[str]
    fitted: Sequence[str] = ()

    def score(self, embeddings: Vectors, dims: Sequence[int]) -> TaskScores:
        """Every metric at every width, times 100."""
        return self.evaluate(embeddings, dims).scores


def build_tasks(config: TasksConfig) -> list[Task]:
    """All tasks of a config, read and checked. Raises InputError naming file, row and cure."""
    return [
        *(similarity_task(name, source) for name, source in config.sts.items()),
        *(pairs_task(name, source) for name, source in config.pairs.items()),
        *(retrieval_task(name, files) for name, files in config.retrieval.items()),
        *(classification_task(name, files) for name, files in config.classification.items()),
        *(
            pair_classification_task(name, files)
            for name, files in config.pair_classification.items()
        ),
        *(clustering_task(name, source) for name, source in config.clustering.items()),
    ]


def fingerprints(config: TasksConfig) -> dict[str, str]:
    """Fingerprints of the files, by task (and file, where a task has several)."""
    return {name: source_fingerprint(source) for name, source in sources(config)}


def sources(config: TasksConfig) -> Iterator[tuple[str, Source]]:
    """Every source of a config's tasks by name: that of the task, or TASK/FIELD."""
    yield from chain(config.sts.items(), config.pairs.items(), config.clustering.items())
    several = (config.retrieval, config.classification, config.pair_classification)
    for name, files in chain.from_iterable(kind.items() for kind in several):
        for field, value in vars(files).items():
            if value is not None:
                yield f"{name}/{field}", value if isinstance(value, Source) else Source(value)


def similarity_task(name: str, source: Source) -> Task:
    """Spearman's correlation of cosine similarity with the scores of sentence pairs."""
    left, right, scores = read_scored(source)
    texts, index = unique([*left, *right])

    def spearman(embeddings: Vectors, dims: Sequence[int]) -> TaskResult:
        a, b = embeddings[index].chunk(2)
        scored = {"spearman": nested_spearman(a, b, scores, dims)}
        return TaskResult(scored, items_of("spearman", scores, paired_cosines(a, b, dims)))

    return Task(name, texts, spearman, "spearman", texts)


def read_scored(source: Source) -> tuple[list[str], list[str], list[float]]:
    """The first texts, the second texts and the scores of pairs, which vary."""
    if len(source.columns) != 3:
        raise InputError(
            f"{source.path}: columns {source.columns}; name three: two texts and a score"
        )
    left, right, score = source.columns
    rows = list(read_rows(source))
    scores = [number_of(row, score) for row in rows]
    if len(set(scores)) < 2:
        raise InputError(f"{source.path}: column {score!r} never varies; nothing to correlate with")
    return [text_of(row, left) for row in rows], [text_of(row, right) for row in rows], scores


def pairs_task(name: str, source: Source) -> Task:
    """Retrieval: the first column's texts are queries, the second's documents."""
    return ranking_task(name, pairs_ranking(read_pairs(source)))


def retrieval_from_pairs(name: str, rows: Sequence[Sequence[str]]) -> Task:
    """Retrieval: each distinct first text is a query, whose documents are its second texts."""
    return ranking_task(name, pairs_ranking(rows))


def retrieval_task(name: str, files: RetrievalFiles) -> Task:
    """Retrieval by BEIR's corpus, queries and relevance judgements."""
    return ranking_task(name, read_ranking(files))


def ranking_task(name: str, ranking: Ranking) -> Task:
    queries, corpus, relevant, identical = ranking

    def rank(embeddings: Vectors, dims: Sequence[int]) -> TaskResult:
        of_queries = embeddings[: len(queries)].to(exact_device(accelerator()))
        retrieval = NestedRetrieval(of_queries, relevant, dims, identical, sync_on_compute=False)
        for first in range(0, len(corpus), CHUNK):  # they may not fit into memory
            last = min(first + CHUNK, len(corpus))
            some = embeddings[len(queries) + first : len(queries) + last]
            retrieval.update(some, torch.arange(first, last))
        return TaskResult(retrieval.compute())

    evaluated, _ = unique(queries)
    return Task(name, queries + corpus, rank, "ndcg@10", evaluated)


def classification_task(name: str, files: ClassificationFiles) -> Task:
    """Classification of test texts by a classifier fitted on the training texts' embeddings."""
    train, test = read_labelled(files.train), read_labelled(files.test)
    refuse_strange_labels(files, train, test)
    texts, index = unique(row.text for row in (*train, *test))
    _, labels = unique(row.label for row in (*train, *test))
    evaluated, _ = unique(row.text for row in test)
    fitted, _ = unique(row.text for row in train)
    count = len(train)

    def classify(embeddings: Vectors, dims: Sequence[int]) -> TaskResult:
        rows, truth = embeddings[index], labels[count:]
        answers = nested_answers(rows[:count], labels[:count], rows[count:], dims)
        return TaskResult(answer_scores(truth, answers), items_of("accuracy", truth, answers))

    return Task(name, texts, classify, "accuracy", evaluated, fitted)


def pair_classification_task(name: str, files: PairClassificationFiles) -> Task:
    """Pairs that match, by their cosine; accuracy where there are pairs to tune a threshold on."""
    test = read_labelled_pairs(files.test)
    tune = read_labelled_pairs(files.tune) if files.tune else []
    evaluated, _ = unique(text for pair in test for text in (pair.left, pair.right))
    fitted, _ = unique(text for pair in tune for text in (pair.left, pair.right))
    texts, _ = unique(text for pair in (*test, *tune) for text in (pair.left, pair.right))
    places = {text: number for number, text in enumerate(texts)}

    def embedded(pairs: Sequence[LabelledPair], embeddings: Vectors) -> LabelledPairs:
        left = embeddings[[places[pair.left] for pair in pairs]]
        right = embeddings[[places[pair.right] for pair in pairs]]
        return LabelledPairs(left, right, [pair.label for pair in pairs])

    def match(embeddings: Vectors, dims: Sequence[int]) -> TaskResult:
        pairs = embedded(test, embeddings)
        cosines = paired_cosines(pairs.left, pairs.right, dims)
        scores = {"ap": nested_average_precision(pairs, dims)}
        if tune:
            scores["accuracy"] = nested_pair_accuracy(pairs, embedded(tune, embeddings), dims)
        return TaskResult(scores, items_of("ap", pairs.labels, cosines))

    return Task(name, texts, match, "ap", evaluated, fitted)


def clustering_task(name: str, source: Source) -> Task:
    """Clustering: whether texts with one label fall into one cluster."""
    rows = read_labelled(source)
    refuse_unique_labels(source, rows)
    texts, index = unique(row.text for row in rows)
    _, labels = unique(row.label for row in rows)

    def cluster(embeddings: Vectors, dims: Sequence[int]) -> TaskResult:
        return TaskResult({"v_measure": nested_v_measure(embeddings[index], labels, dims)})

    return Task(name, texts, cluster, "v_measure", texts)


def items_of(
    statistic: Statistic, truth: Sequence[float], answers: Mapping[int, Num[Tensor, " items"]]
) -> Items:
    answered = {dim: values.double() for dim, values in answers.items()}
    return Items(statistic, torch.tensor(truth, dtype=torch.double), answered)
