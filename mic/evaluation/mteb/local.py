"""Make mteb's tasks from the local files of one of mic's suites."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mic.config.schema_data import (
    ClassificationFiles,
    PairClassificationFiles,
    RetrievalFiles,
    Source,
    TasksConfig,
)
from mic.errors import InputError
from mic.evaluation.evaluate import json_hash
from mic.evaluation.tasks.labels import (
    read_labelled,
    read_labelled_pairs,
    refuse_strange_labels,
    refuse_unique_labels,
)
from mic.evaluation.tasks.relevance import Ranking, pairs_ranking, read_pairs, read_ranking
from mic.evaluation.tasks.tasks import fingerprints, read_scored

TEST, TRAIN = "test", "train"
LANGUAGE = "eng-Latn"  # mteb requires one; no score depends on it


def local_tasks(config: TasksConfig) -> list[Any]:
    """The tasks of a suite as mteb's tasks, in mic's order, with their data loaded.

    A task's revision is a hash of its files, so that results of other data are never reused.
    Raises InputError naming file, row and cure.
    """
    tasks: list[Any] = []
    kinds: Sequence[tuple[Mapping[str, Any], Callable[[str, Any, str], Any]]] = (
        (config.sts, similarity),
        (config.pairs, pairs),
        (config.retrieval, retrieval),
        (config.classification, classification),
        (config.pair_classification, pair_classification),
        (config.clustering, clustering),
    )
    hashes = fingerprints(config)
    for sources, make in kinds:
        for name, files in sources.items():
            if "/" in name:
                raise InputError(f"task {name!r}: mteb names a file after it; write it without /")
            data = {key: sha for key, sha in hashes.items() if key.split("/")[0] == name}
            tasks.append(make(name, files, json_hash(data, asdict(files))))
    return tasks


def similarity(name: str, source: Source, revision: str) -> Any:
    from datasets import Dataset
    from mteb.abstasks import AbsTaskSTS

    left, right, scores = read_scored(source)
    rows = Dataset.from_dict({"sentence1": left, "sentence2": right, "score": scores})
    task = task_of(AbsTaskSTS, name, "STS", "cosine_spearman", revision)
    return with_dataset(task, {TEST: rows})


def pairs(name: str, source: Source, revision: str) -> Any:
    return ranking(name, pairs_ranking(read_pairs(source)), revision)


def retrieval(name: str, files: RetrievalFiles, revision: str) -> Any:
    return ranking(name, read_ranking(files), revision)


def ranking(name: str, ranks: Ranking, revision: str) -> Any:
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval

    # mteb leaves out a document that has its query's id
    ids = [
        f"q{n}" if identical is None else f"d{identical}"
        for n, identical in enumerate(ranks.identical)
    ]
    documents = [f"d{n}" for n in range(len(ranks.corpus))]
    gains = [whole_gains(name, gain) for gain in ranks.relevant]
    rows = {
        "queries": Dataset.from_dict({"id": ids, "text": ranks.queries}),
        "corpus": Dataset.from_dict({"id": documents, "text": ranks.corpus}),
        "relevant_docs": dict(zip(ids, gains, strict=True)),
        "top_ranked": None,
    }
    task = task_of(AbsTaskRetrieval, name, "Retrieval", "ndcg_at_10", revision)
    task.ignore_identical_ids = True
    return with_dataset(task, {"default": {TEST: rows}})


def whole_gains(name: str, gains: Mapping[int, float]) -> dict[str, int]:
    """Gains as whole numbers, which mteb requires, by the id of the document."""
    broken = [gain for gain in gains.values() if gain != int(gain)]
    if broken:
        raise InputError(f"task {name!r}: score {broken[0]}: mteb takes whole numbers; round them")
    return {f"d{document}": int(gain) for document, gain in gains.items()}


def classification(name: str, files: ClassificationFiles, revision: str) -> Any:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskClassification

    splits = {TRAIN: read_labelled(files.train), TEST: read_labelled(files.test)}
    refuse_strange_labels(files, splits[TRAIN], splits[TEST])
    numbers = numbered([row.label for rows in splits.values() for row in rows])
    task = task_of(AbsTaskClassification, name, "Classification", "accuracy", revision)
    texts = {split: [row.text for row in rows] for split, rows in splits.items()}
    labels = {split: [numbers[row.label] for row in rows] for split, rows in splits.items()}
    tables = {
        split: Dataset.from_dict({"text": texts[split], "label": labels[split]}) for split in splits
    }
    return with_dataset(task, DatasetDict(tables))


def numbered(labels: Sequence[str]) -> dict[str, int]:
    """A number for every label: itself where all are numbers, else its place in their order.

    >>> numbered(["10", "9"]), numbered(["no", "yes", "no"])
    ({'10': 10, '9': 9}, {'no': 0, 'yes': 1})
    """
    known = sorted(set(labels))
    if all(label.isdecimal() for label in known):
        return {label: int(label) for label in known}
    return {label: place for place, label in enumerate(known)}


def pair_classification(name: str, files: PairClassificationFiles, revision: str) -> Any:
    from datasets import Dataset
    from mteb.abstasks import AbsTaskPairClassification

    left, right, labels = zip(*read_labelled_pairs(files.test), strict=True)
    rows = Dataset.from_dict({"sentence1": left, "sentence2": right, "labels": labels})
    task = task_of(AbsTaskPairClassification, name, "PairClassification", "max_ap", revision)
    return with_dataset(task, {TEST: rows})


def clustering(name: str, source: Source, revision: str) -> Any:
    from datasets import Dataset
    from mteb.abstasks import AbsTaskClustering

    rows = read_labelled(source)
    refuse_unique_labels(source, rows)
    table = {"sentences": [row.text for row in rows], "labels": [row.label for row in rows]}
    task = task_of(AbsTaskClustering, name, "Clustering", "v_measure", revision)
    task.max_fraction_of_documents_to_embed = None  # all of them
    return with_dataset(task, {TEST: Dataset.from_dict(table)})


def task_of(kind: Any, name: str, type_of: str, main_score: str, revision: str) -> Any:
    """A new task of one of mteb's kinds."""
    from mteb.abstasks.task_metadata import TaskMetadata

    metadata = TaskMetadata(
        name=name,
        description="local files",
        dataset={"path": name, "revision": revision},
        type=type_of,
        category="t2t" if kind.__name__ != "AbsTaskClassification" else "t2c",
        eval_splits=[TEST],
        eval_langs=[LANGUAGE],
        main_score=main_score,
    )
    return type(f"Local{kind.__name__}", (kind,), {"metadata": metadata})()


def with_dataset(task: Any, dataset: Any) -> Any:
    task.dataset, task.data_loaded = dataset, True
    return task
