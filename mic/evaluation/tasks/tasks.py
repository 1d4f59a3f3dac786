"""Evaluation tasks: texts, and what their embeddings score at every width.

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
    Pair,
    read_judged_pairs,
    read_labelled,
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

Scores = dict[str, dict[int, float]]  # metric -> width -> value


class Judged(NamedTuple):
    """Every metric at every width, times 100, and the headline's items where it has some."""

    scores: Scores
    items: Items | None = None


@dataclass(frozen=True)
class Task:
    """`judge(embeddings [texts, D], dims)` says what the texts' embeddings are worth.

    `judged` are the texts that the scores are about, each once: to have trained on them is unfair.
    Documents to be found are not, nor are `fitted`, those that a classifier or a threshold is
    fitted on.
    """

    name: str
    texts: list[str]
    judge: Callable[[Vectors, Sequence[int]], Judged]
    headline: str  # the metric that tables and figures show
    judged: list[str]
    fitted: Sequence[str] = ()

    def score(self, embeddings: Vectors, dims: Sequence[int]) -> Scores:
        """Every metric at every width, times 100."""
        return self.judge(embeddings, dims).scores


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
    """What every task's files held, by task (and file, where a task has several)."""
    return {name: source_fingerprint(source) for name, source in sources(config)}


def sources(config: TasksConfig) -> Iterator[tuple[str, Source]]:
    """Every source of a config's tasks under its name: that of the task, or TASK/PART."""
    yield from chain(config.sts.items(), config.pairs.items(), config.clustering.items())
    several = (config.retrieval, config.classification, config.pair_classification)
    for name, files in chain.from_iterable(kind.items() for kind in several):
        for part, found in vars(files).items():
            if found is not None:
                yield f"{name}/{part}", found if isinstance(found, Source) else Source(found)


def similarity_task(name: str, source: Source) -> Task:
    """Spearman's correlation of cosine similarity with the scores of sentence pairs."""
    left, right, scores = read_scored(source)
    texts, index = unique([*left, *right])

    def spearman(embeddings: Vectors, dims: Sequence[int]) -> Judged:
        a, b = embeddings[index].chunk(2)
        scored = {"spearman": nested_spearman(a, b, scores, dims)}
        return Judged(scored, items_of("spearman", scores, paired_cosines(a, b, dims)))

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
    """Retrieval among the second column's texts by those of the first."""
    return ranking_task(name, pairs_ranking(read_pairs(source)))


def retrieval_from_pairs(name: str, rows: Sequence[Sequence[str]]) -> Task:
    """Every distinct first text looks for its second texts among all distinct ones."""
    return ranking_task(name, pairs_ranking(rows))


def retrieval_task(name: str, files: RetrievalFiles) -> Task:
    """Corpus, queries and relevance judgements in BEIR's columns."""
    return ranking_task(name, read_ranking(files))


def ranking_task(name: str, ranking: Ranking) -> Task:
    queries, corpus, relevant, own = ranking

    def rank(embeddings: Vectors, dims: Sequence[int]) -> Judged:
        asked = embeddings[: len(queries)].to(exact_device(accelerator()))
        found = NestedRetrieval(asked, relevant, dims, own, sync_on_compute=False)
        for first in range(0, len(corpus), CHUNK):  # which may be too large for the memory
            last = min(first + CHUNK, len(corpus))
            some = embeddings[len(queries) + first : len(queries) + last]
            found.update(some, torch.arange(first, last))
        return Judged(found.compute())

    judged, _ = unique(queries)
    return Task(name, queries + corpus, rank, "ndcg@10", judged)


def classification_task(name: str, files: ClassificationFiles) -> Task:
    """Labels of test texts by a classifier that is fitted on the training texts' embeddings."""
    train, test = read_labelled(files.train), read_labelled(files.test)
    refuse_strange_labels(files, train, test)
    texts, index = unique(row.text for row in (*train, *test))
    _, labels = unique(row.label for row in (*train, *test))
    judged, _ = unique(row.text for row in test)
    fitted, _ = unique(row.text for row in train)
    count = len(train)

    def classify(embeddings: Vectors, dims: Sequence[int]) -> Judged:
        rows, truth = embeddings[index], labels[count:]
        answers = nested_answers(rows[:count], labels[:count], rows[count:], dims)
        return Judged(answer_scores(truth, answers), items_of("accuracy", truth, answers))

    return Task(name, texts, classify, "accuracy", judged, fitted)


def pair_classification_task(name: str, files: PairClassificationFiles) -> Task:
    """Which pairs match, by their cosine; with a threshold where there are pairs to tune it on."""
    test = read_judged_pairs(files.test)
    tune = read_judged_pairs(files.tune) if files.tune else []
    judged, _ = unique(text for pair in test for text in (pair.left, pair.right))
    fitted, _ = unique(text for pair in tune for text in (pair.left, pair.right))
    texts, _ = unique(text for pair in (*test, *tune) for text in (pair.left, pair.right))
    places = {text: at for at, text in enumerate(texts)}

    def embedded(pairs: Sequence[Pair], embeddings: Vectors) -> LabelledPairs:
        left = embeddings[[places[pair.left] for pair in pairs]]
        right = embeddings[[places[pair.right] for pair in pairs]]
        return LabelledPairs(left, right, [pair.label for pair in pairs])

    def match(embeddings: Vectors, dims: Sequence[int]) -> Judged:
        asked = embedded(test, embeddings)
        cosines = paired_cosines(asked.left, asked.right, dims)
        scores = {"ap": nested_average_precision(asked, dims)}
        if tune:
            scores["accuracy"] = nested_pair_accuracy(asked, embedded(tune, embeddings), dims)
        return Judged(scores, items_of("ap", asked.labels, cosines))

    return Task(name, texts, match, "ap", judged, fitted)


def clustering_task(name: str, source: Source) -> Task:
    """Whether texts of one label fall into one group."""
    rows = read_labelled(source)
    refuse_unique_labels(source, rows)
    texts, index = unique(row.text for row in rows)
    _, labels = unique(row.label for row in rows)

    def cluster(embeddings: Vectors, dims: Sequence[int]) -> Judged:
        return Judged({"v_measure": nested_v_measure(embeddings[index], labels, dims)})

    return Task(name, texts, cluster, "v_measure", texts)


def items_of(
    statistic: Statistic, truth: Sequence[float], found: Mapping[int, Num[Tensor, " items"]]
) -> Items:
    answered = {dim: values.double() for dim, values in found.items()}
    return Items(statistic, torch.tensor(truth, dtype=torch.double), answered)
