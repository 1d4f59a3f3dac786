"""Embeddings on disk: read in parts, never all in memory."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from references import gaussian

from mic.encoder.embedding_file import Embeddings, apply_change
from mic.evaluation.tasks.relevance import Ranking
from mic.evaluation.tasks.tasks import ranking_task


def stored(folder: Path, rows: torch.Tensor) -> Embeddings:
    rows.numpy().tofile(folder / "rows")
    return Embeddings(folder / "rows", rows.shape[1], np.arange(len(rows)))


def test_a_change_is_made_as_rows_are_read(tmp_path):
    rows = gaussian(50, 8).float()
    turned = apply_change(apply_change(stored(tmp_path, rows), lambda x: 2 * x), lambda x: x + 1)
    assert torch.equal(turned[10:20], 2 * rows[10:20] + 1)
    assert torch.equal(apply_change(rows, lambda x: x + 1), rows + 1)


def largest() -> int:
    """The largest resident size since it was reset, in bytes."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_a_large_corpus_is_scored_in_little_memory_with_the_same_figures(tmp_path):
    queries, documents, width = 30, 200_000, 64
    rows = torch.randn(queries + documents, width, generator=torch.Generator().manual_seed(0))
    on_disk, size = stored(tmp_path, rows), rows.nbytes
    relevant = [{n: 1.0, 7 * n + 9000: 1.0} for n in range(queries)]
    ranking = Ranking(["q"] * queries, ["d"] * documents, relevant, [None] * queries)
    task = ranking_task("large", ranking)
    expected = task.score(rows, [16, 64])
    del rows

    def peak(call) -> tuple[object, int]:
        Path("/proc/self/clear_refs").write_text("5")
        before = largest()
        result = call()
        return result, largest() - before

    _, whole = peak(lambda: on_disk[:].sum())
    assert whole > 0.9 * size  # else nothing is measured
    scores, chunks = peak(lambda: task.score(on_disk, [16, 64]))
    assert scores == expected
    assert chunks < size / 2
