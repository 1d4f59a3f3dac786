"""Embeddings on disk: written as they come, read in parts, never all in memory."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from references import gaussian
from sentences import sentence

from mic.encoder.embedding_file import Embeddings, changed
from mic.encoder.encoder import Encoder
from mic.errors import RunError
from mic.evaluation.encoding import DONE, VECTORS, embed_all, fresh_texts, opened
from mic.evaluation.tasks.relevance import Ranking
from mic.evaluation.tasks.tasks import ranking_task

# longer and shorter texts in turn, some of them twice
TEXTS = [" ".join(map(sentence, range(n, n + n % 4 + 1))) for n in [*range(70), 3, 8]]
ASKED = {"first": TEXTS[:30], "second": TEXTS[20:]}


def test_rows_are_those_that_the_encoder_gives_to_the_bit(encoder, tmp_path):
    found = embed_all(encoder, ASKED, 4, tmp_path, "encoding")
    for task, texts in fresh_texts(ASKED).items():
        expected = dict(zip(texts, encoder.embed(texts, batch_size=4), strict=True))
        for text, row in zip(ASKED[task], found[task][:], strict=True):
            if text in expected:
                assert torch.equal(row, expected[text])
    assert torch.equal(found["first"][20:], found["second"][:10])  # of one file
    assert found["second"].shape == (52, 32)
    assert (tmp_path / VECTORS).stat().st_size == 70 * 32 * 4
    assert torch.equal(found["first"][[5, 1]], found["first"][:][[5, 1]])
    assert found["first"][[]].shape == (0, 32)


@pytest.mark.parametrize("batch_size", [2, 4, 9])
def test_encoding_goes_on_in_the_middle_of_a_task(encoder, tmp_path, monkeypatch, batch_size):
    whole = embed_all(encoder, ASKED, 4, tmp_path / "whole", "encoding")
    calls, embed = [], Encoder.embed

    def interrupted(self, texts, **options):
        if calls:
            raise KeyboardInterrupt
        calls.append(texts)
        return embed(self, texts, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "embed", interrupted)
        patch.setattr("mic.evaluation.encoding.BLOCK", 2)
        with pytest.raises(KeyboardInterrupt):
            embed_all(encoder, ASKED, 4, tmp_path / "cut", "encoding")
    assert json.loads((tmp_path / "cut" / DONE).read_text()) == {"rows": 8}
    calls.clear()
    monkeypatch.setattr("mic.evaluation.encoding.BLOCK", 1)
    monkeypatch.setattr(
        Encoder, "embed", lambda self, some, **o: calls.extend(some) or embed(self, some, **o)
    )
    again = embed_all(encoder, ASKED, batch_size, tmp_path / "cut", "encoding")
    # what was done is not done again, but for the rest of a batch where their size is another
    assert 62 <= len(calls) < 62 + batch_size
    for task, rows in whole.items():
        torch.testing.assert_close(again[task][:], rows[:])
        assert batch_size != 4 or torch.equal(again[task][:], rows[:])
    calls.clear()
    embed_all(encoder, ASKED, 4, tmp_path / "cut", "encoding")
    assert not calls


def test_a_file_that_is_not_what_was_written_is_written_anew(encoder, tmp_path):
    expected = embed_all(encoder, ASKED, 4, tmp_path, "encoding")["second"][:]
    for break_it in (
        lambda: (tmp_path / VECTORS).unlink(),
        lambda: (tmp_path / VECTORS).write_bytes(b"other"),
        lambda: [(tmp_path / DONE).write_text("?"), (tmp_path / VECTORS).write_bytes(bytes(8960))],
    ):
        break_it()
        assert torch.equal(embed_all(encoder, ASKED, 4, tmp_path, "again")["second"][:], expected)


def test_two_processes_do_not_write_one_file(encoder, tmp_path):
    with opened(tmp_path / VECTORS, 100), pytest.raises(RunError, match="another process is writ"):
        embed_all(encoder, ASKED, 4, tmp_path, "encoding")


def test_a_full_disk_is_said_and_what_is_written_is_kept(encoder, tmp_path, monkeypatch):
    embed_all(encoder, ASKED, 4, tmp_path, "encoding")
    done = json.loads((tmp_path / DONE).read_text())
    (tmp_path / DONE).write_text(json.dumps({"rows": 32}))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device; free some space and start again"):
        embed_all(encoder, ASKED, 4, tmp_path, "encoding")
    assert json.loads((tmp_path / DONE).read_text())["rows"] < done["rows"]


def test_embeddings_that_are_not_finite_are_refused(encoder, tmp_path):
    with torch.no_grad():
        encoder.backbone.embeddings.word_embeddings.weight.fill_(torch.nan)
    with pytest.raises(RunError, match="embeddings of first are not finite; the model diverged"):
        embed_all(encoder, ASKED, 4, tmp_path, "encoding")
    assert not (tmp_path / DONE).exists()


def stored(folder: Path, rows: torch.Tensor) -> Embeddings:
    rows.numpy().tofile(folder / "rows")
    return Embeddings(folder / "rows", rows.shape[1], np.arange(len(rows)))


def test_a_change_is_made_as_rows_are_read(tmp_path):
    rows = gaussian(50, 8).float()
    turned = changed(changed(stored(tmp_path, rows), lambda x: 2 * x), lambda x: x + 1)
    assert torch.equal(turned[10:20], 2 * rows[10:20] + 1)
    assert torch.equal(changed(rows, lambda x: x + 1), rows + 1)


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
        found = call()
        return found, largest() - before

    _, whole = peak(lambda: on_disk[:].sum())
    assert whole > 0.9 * size  # else nothing is measured
    found, chunks = peak(lambda: task.score(on_disk, [16, 64]))
    assert found == expected
    assert chunks < size / 2
