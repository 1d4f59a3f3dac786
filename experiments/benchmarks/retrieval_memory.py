"""What scoring a corpus that stays on disk takes in memory and time, beside the full matrix."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from timing import HERE, agree, publish, table
from torch import Tensor

from mic.encoder.embedding_file import Embeddings
from mic.evaluation.tasks.relevance import Ranking
from mic.evaluation.tasks.tasks import ranking_task
from mic.nested import prefix, unit

DOCUMENTS, WIDTH, QUERIES = 500_000, 128, 200
DIMS = [16, 32, 64, 128]
ROUNDS = 3
RELEVANT = [{n: 1.0, 7 * n + 9000: 1.0} for n in range(QUERIES)]


def in_chunks(file: Path) -> dict[int, float]:
    """As `mic evaluate` scores a retrieval task: nDCG@10 at every width."""
    rows = Embeddings(file, WIDTH, np.arange(QUERIES + DOCUMENTS))
    texts = (["query"] * QUERIES, ["document"] * DOCUMENTS)
    task = ranking_task("retrieval", Ranking(*texts, RELEVANT, [None] * QUERIES))
    return task.score(rows, DIMS).scores["ndcg@10"]


def at_once(file: Path) -> dict[int, float]:
    """All embeddings in memory; a width after the other, all cosines of all queries."""
    rows = torch.from_numpy(np.fromfile(file, np.float32).reshape(-1, WIDTH))
    found = {}
    for dim in DIMS:
        short = unit(prefix(rows, dim))
        best = (short[:QUERIES] @ short[QUERIES:].T).topk(10).indices
        found[dim] = 100 * ndcg(best)
    return found


def ndcg(best: Tensor) -> float:
    discounts = 1 / torch.log2(torch.arange(2, 12, dtype=torch.double))
    values = []
    for ranked, relevant in zip(best.tolist(), RELEVANT, strict=True):
        gains = torch.tensor([relevant.get(one, 0.0) for one in ranked], dtype=torch.double)
        values.append((gains @ discounts / discounts[: len(relevant)].sum()).item())
    return sum(values) / len(values)


CALLS: Mapping[str, Callable[[Path], dict[int, float]]] = {
    "in chunks, from disk": in_chunks,
    "full matrix in memory": at_once,
}


def measured(name: str, file: Path) -> tuple[list[float], float, float]:
    """Scores, seconds and MiB added to the largest resident size."""
    torch.set_num_threads(1)
    before, start = largest(), time.perf_counter()
    scores = CALLS[name](file)
    return list(scores.values()), time.perf_counter() - start, largest() - before


def largest() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def in_a_process(*words: str) -> tuple[list[float], float, float]:
    command = [sys.executable, str(HERE / "retrieval_memory.py"), *words]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    scores, seconds, memory = json.loads(run.stdout)
    return scores, seconds, memory


def write(file: Path) -> None:
    """Random documents, and queries near the two that answer each."""
    generator = np.random.default_rng(0)
    with file.open("wb") as stream:
        documents = generator.standard_normal((DOCUMENTS, WIDTH), np.float32)
        answers = np.array([list(one) for one in RELEVANT])
        noise = 1.5 * generator.standard_normal((QUERIES, WIDTH), np.float32)
        (documents[answers].sum(1) + noise).tofile(stream)
        documents.tofile(stream)


def column(rounds: Sequence[Mapping[str, tuple[list[float], float, float]]], at: int) -> list[str]:
    return [f"{median(one[name][at] for one in rounds):,.1f}" for name in CALLS]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.f32"
        write(file)
        rounds = [{name: in_a_process(name, str(file)) for name in CALLS} for _ in range(ROUNDS)]
        size = file.stat().st_size / 2**20
    first = rounds[0]
    for ours, theirs in zip(*(first[name][0] for name in CALLS), strict=True):
        agree(ours, theirs)
    rows = [list(row) for row in zip(CALLS, column(rounds, 1), column(rounds, 2), strict=True)]
    publish(
        "retrieval_memory",
        "Scoring a corpus that stays on disk",
        [
            f"nDCG@10 of {QUERIES} queries at widths {DIMS} among {DOCUMENTS:,} documents, "
            f"{size:,.0f} MiB of random float32 vectors in a file that the system has cached; each "
            "in a fresh process. In chunks: what `mic evaluate` does (and recall, MRR and MAP, 100 "
            "deep). Full matrix: the file read whole, and at each width all cosines, the 10 best. "
            f"MiB: what it adds to the largest resident size (VmHWM). nDCG@10 agrees at all widths "
            f"(1e-4): {', '.join(f'{score:.1f}' for score in first[next(iter(CALLS))][0])}.",
            table(["", "s", "MiB"], rows),
        ],
        ROUNDS,
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measured(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
