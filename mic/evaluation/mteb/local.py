"""Tasks over local files for mteb: a suite of mic's own, scored by mteb's code and protocol."""

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
from mic.evaluation.evaluate import digest
from mic.evaluation.tasks.labels import (
    read_judged_pairs,
    read_labelled,
    refuse_strange_labels,
    refuse_unique_labels,
)
from mic.evaluation.tasks.relevance import Ranking, pairs_ranking, read_pairs, read_ranking
from mic.evaluation.tasks.tasks import fingerprints, read_scored

TEST, TRAIN = "test", "train"
LANGUAGE = "eng-Latn"  # mteb wants one; nothing that is scored depends on it


def local_tasks(config: TasksConfig) -> list[Any]:
    """The tasks of a suite as mteb's, in the order in which mic has them, with their data loaded.

    A task's revision is a hash of its files, so that no result of other data is taken for its own.
    Raises InputError naming file, row and cure.
    """
    made: list[Any] = []
    kinds: Sequence[tuple[Mapping[str, Any], Callable[[str, Any, str], Any]]] = (
        (config.sts, similarity),
        (config.pairs, pairs),
        (config.retrieval, retrieval),
        (config.classification, classification),
        (config.pair_classification, pair_classification),
        (config.clustering, clustering),
    )
    hashes = fingerprints(config)
    for tasks, make in kinds:
        for name, files in tasks.items():
            if "/" in name:
                raise InputError(f"task {name!r}: mteb names a file after it; write it without /")
            held = {key: one for key, one in hashes.items() if key.split("/")[0] == name}
            made.append(make(name, files, digest(held, asdict(files))))
    return made


def similarity(name: str, source: Source, revision: str) -> Any:
    from datasets import Dataset
    from mteb.abstasks import AbsTaskSTS

    left, right, scores = read_scored(source)
    rows = Dataset.from_dict({"sentence1": left, "sentence2": right, "score": scores})
    made = task_of(AbsTaskSTS, name, "STS", "cosine_spearman", revision)
    return loaded(made, {TEST: rows})


def pairs(name: str, source: Source, revision: str) -> Any:
    return ranking(name, pairs_ranking(read_pairs(source)), revision)


def retrieval(name: str, files: RetrievalFiles, revision: str) -> Any:
    return ranking(name, read_ranking(files), revision)


def ranking(name: str, found: Ranking, revision: str) -> Any:
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval

    # mteb leaves out a document that has its query's id
    ids = [f"q{n}" if own is None else f"d{own}" for n, own in enumerate(found.own)]
    documents = [f"d{n}" for n in range(len(found.corpus))]
    gains = [whole(name, one) for one in found.relevant]
    rows = {
        "queries": Dataset.from_dict({"id": ids, "text": found.queries}),
        "corpus": Dataset.from_dict({"id": documents, "text": found.corpus}),
        "relevant_docs": dict(zip(ids, gains, strict=True)),
        "top_ranked": None,
    }
    made = task_of(AbsTaskRetrieval, name, "Retrieval", "ndcg_at_10", revision)
    made.ignore_identical_ids = True
    return loaded(made, {"default": {TEST: rows}})


def whole(name: str, gains: Mapping[int, float]) -> dict[str, int]:
    """Gains as mteb takes them: whole numbers."""
    broken = [gain for gain in gains.values() if gain != int(gain)]
    if broken:
        raise InputError(f"task {name!r}: score {broken[0]}: mteb takes whole numbers; round them")
    return {f"d{document}": int(gain) for document, gain in gains.items()}


def classification(name: str, files: ClassificationFiles, revision: str) -> Any:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskClassification

    parts = {TRAIN: read_labelled(files.train), TEST: read_labelled(files.test)}
    refuse_strange_labels(files, parts[TRAIN], parts[TEST])
    numbers = numbered([row.label for rows in parts.values() for row in rows])
    made = task_of(AbsTaskClassification, name, "Classification", "accuracy", revision)
    texts = {part: [row.text for row in rows] for part, rows in parts.items()}
    labels = {part: [numbers[row.label] for row in rows] for part, rows in parts.items()}
    tables = {
        part: Dataset.from_dict({"text": texts[part], "label": labels[part]}) for part in parts
    }
    return loaded(made, DatasetDict(tables))


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

    left, right, labels = zip(*read_judged_pairs(files.test), strict=True)
    rows = Dataset.from_dict({"sentence1": left, "sentence2": right, "labels": labels})
    made = task_of(AbsTaskPairClassification, name, "PairClassification", "max_ap", revision)
    return loaded(made, {TEST: rows})


def clustering(name: str, source: Source, revision: str) -> Any:
    from datasets import Dataset
    from mteb.abstasks import AbsTaskClustering

    rows = read_labelled(source)
    refuse_unique_labels(source, rows)
    table = {"sentences": [row.text for row in rows], "labels": [row.label for row in rows]}
    made = task_of(AbsTaskClustering, name, "Clustering", "v_measure", revision)
    made.max_fraction_of_documents_to_embed = None  # all of them
    return loaded(made, {TEST: Dataset.from_dict(table)})


def task_of(kind: Any, name: str, type_of: str, main_score: str, revision: str) -> Any:
    """A task of one of mteb's kinds that mteb itself does not know."""
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


def loaded(task: Any, dataset: Any) -> Any:
    task.dataset, task.data_loaded = dataset, True
    return task
