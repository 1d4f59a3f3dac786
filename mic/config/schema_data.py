"""Define the settings of what is read: corpora to train on and the tasks' files."""

from dataclasses import dataclass
from typing import Literal

from mic.config.fields import option


@dataclass
class Source:
    """Where rows are read from."""

    path: str = option(
        "???",
        "a file, a folder or a glob of files (jsonl, csv, tsv, parquet; also .gz), a Hub data set, "
        "or builtin:docstrings",
    )
    columns: list[str] = option([], "the columns read, in the order of their meaning")
    split: str = option("train", "split of a Hub or built-in data set")
    subset: str | None = option(None, "configuration of a Hub data set that has several")
    revision: str | None = option(None, "branch, tag or commit of a Hub data set")
    where: dict[str, str] = option(
        {}, "column: value; rows with other values are passed over, as if they were not there"
    )
    limit: int | None = option(None, "rows read at most, from the top", least=1)


@dataclass
class CorpusConfig(Source):
    """Rows to train on: one text column (the sentence twice), two (a pair), more (negatives)."""

    group: str | None = option(
        None, "column whose equal values mark rows that are no negatives of each other"
    )
    label: str | None = option(
        None, "column of labels: a row's one text is paired with another of its label, drawn anew"
    )
    score: str | None = option(None, "column of numbers: rows below min_score are no pairs")
    min_score: float = option(1.0, "least score of a pair, where there is a score")
    min_characters: int = option(1, "rows with a shorter text are dropped", least=1)
    max_characters: int | None = option(None, "rows with a longer text are dropped", least=1)
    deduplicate: bool = option(False, "drop rows whose texts are all those of an earlier row")
    weight: float | None = option(
        None,
        "share of the epoch, relative to the other corpora's; null: by data.temperature",
        above=0,
    )
    streaming: bool = option(False, "read on the fly, in the order of the files, without an index")


@dataclass
class DataConfig:
    train: dict[str, CorpusConfig] = option({}, "named corpora to train on")
    validation: dict[str, CorpusConfig] = option({}, "named corpora for the validation loss")
    validation_rows: int = option(
        500, "held out of training, seeded, when validation is empty", least=2
    )
    on_bad_row: Literal["raise", "skip"] = option("raise", "for a row without text")
    temperature: float = option(
        1.0, "T of corpora without weights: shares as rows^(1/T); 1 sees each row once", above=0
    )
    batches: Literal["mixed", "single"] = option(
        "mixed", "a batch's rows are of all corpora, or of one"
    )
    keep_apart: bool = option(
        True, "rows that share a text or a group never meet in a batch; they wait for another"
    )
    window: int = option(
        2**16, "rows that are sorted by length together; 0: batches of random lengths", least=0
    )
    tokenize: Literal["ahead", "fly"] = option(
        "ahead", "tokenize all texts once and keep the tokens on disk, or each batch anew"
    )
    pad_multiple: int | None = option(
        None, "token counts of a batch are rounded up to this; null: 8 on a GPU, else 1", least=1
    )
    num_workers: int = option(0, "processes that load batches ahead", least=0)


@dataclass
class RetrievalFiles:
    corpus: str = option("???", "file with columns _id, text and perhaps title")
    queries: str = option("???", "file with columns _id, text")
    qrels: str = option("???", "file with columns query_id, doc_id, score (above 0: relevant)")


@dataclass
class ClassificationFiles:
    train: Source = option(Source, "rows a classifier is fitted on; columns: a text, its label")
    test: Source = option(Source, "rows it is evaluated on, with the same columns")


@dataclass
class PairClassificationFiles:
    test: Source = option(Source, "pairs to evaluate on; columns: two texts, a label of 0 or 1")
    tune: Source | None = option(None, "pairs to tune accuracy's threshold on; null: no accuracy")


@dataclass
class TasksConfig:
    sts: dict[str, Source] = option(
        {}, "named files of sentence pairs; columns: two texts, a score"
    )
    pairs: dict[str, Source] = option({}, "named files of pairs: the first column finds the second")
    retrieval: dict[str, RetrievalFiles] = option({}, "named sets of corpus, queries and qrels")
    classification: dict[str, ClassificationFiles] = option({}, "labelled texts, for a classifier")
    pair_classification: dict[str, PairClassificationFiles] = option({}, "pairs, alike or not")
    clustering: dict[str, Source] = option({}, "named files to group; columns: a text, its label")
