"""What seven widths of mteb's tasks cost beside one, and beside mteb run once per width.

`python experiments/benchmarks/mteb_cost.py FOLDER`; FOLDER holds the shared data sets.
"""

import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import mteb
from evaluation_cost import DIMS, NAME, SUITE, thin_out
from sentence_transformers import SentenceTransformer
from timing import agree, publish, ratio, seconds, table

from mic.encoder.loading import locate
from mic.evaluation.evaluate import Options
from mic.evaluation.models import find_models
from mic.evaluation.mteb.local import local_tasks
from mic.evaluation.mteb.run import evaluate_model_by_mteb, quiet_mteb
from mic.evaluation.scoring import Results
from mic.evaluation.tasks.suite import read_suite

TASKS = f"{SUITE}\nsts: {{stsb: {{path: stsb/test.jsonl, columns: [sentence1, sentence2, score]}}}}"
ROUNDS = 2


def main(folder: Path) -> None:
    data = Path(tempfile.mkdtemp())
    rows = thin_out(folder, data)
    (data / "suite.yaml").write_text(TASKS)
    suite = read_suite(str(data / "suite.yaml"), data)

    def ours(dims: list[int]) -> Results:
        """All of `mic evaluate` but its imports and its picture; nothing is known from before."""
        os.environ["MIC_CACHE"] = tempfile.mkdtemp()
        options = Options(Path(tempfile.mkdtemp()), dims)
        return evaluate_model_by_mteb(
            find_models([NAME])[0], "suite", local_tasks(suite), options
        ).results

    def theirs() -> list[dict[str, float]]:
        """mteb as one runs it, once per width, with a result cache for each."""
        found = []
        for dim in DIMS:
            model = SentenceTransformer(str(locate(NAME)), device="cpu", truncate_dim=dim)
            done = mteb.evaluate(
                model,
                local_tasks(suite),
                cache=mteb.ResultCache(tempfile.mkdtemp()),
                co2_tracker=False,
                show_progress_bar=False,
                encode_kwargs={
                    "batch_size": 64,
                    "normalize_embeddings": True,
                    "show_progress_bar": False,
                },
            )
            found.append({one.task_name: float(one.get_score()) for one in done.task_results})
        return found

    calls = {
        "7 widths": lambda: ours(DIMS),
        "1 width": lambda: ours(DIMS[-1:]),
        "mteb, 7 times": theirs,
    }
    with quiet_mteb():
        results = ours(DIMS)
        for dim, scores in zip(DIMS, theirs(), strict=True):
            for task, score in scores.items():
                (by_width,) = results[task].values()
                agree(by_width[dim] / 100, score, 1e-6)
        times = seconds(calls, ROUNDS, warm=False, clock=time.process_time)
    names = list(calls)
    pairs = [(names[0], names[1]), (names[2], names[0])]
    counts = ", ".join(
        f"{len(one):,} of {name}" for name, one in rows.items() if name[:4] != "mrpc"
    )
    publish(
        "mteb_cost",
        "mteb's tasks at every width",
        [
            f"all-MiniLM-L6-v2, D = 384, widths {DIMS} or 384 alone, by mteb {version('mteb')}; "
            f"rows: {counts}. CPU seconds of the process, end to end but imports: model loaded, "
            "texts encoded, mteb's scoring (of Banking77 ten classifiers a width), results "
            "written. mteb, 7 times: `mteb.evaluate` on SentenceTransformer(truncate_dim=...); its "
            "scores agree at all widths (1e-6).",
            table(
                ["", "seconds, median"],
                [[name, f"{sum(found) / len(found):.1f}"] for name, found in times.items()],
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
