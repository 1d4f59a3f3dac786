"""The texts of an evaluation: each encoded once, written as they come, read from the disk."""

import os

import pytest
import torch
from sentences import sentence

from mic.encoder.embedding_store import KEYS, LOCK, META, EmbeddingStore
from mic.encoder.encoder import Encoder
from mic.errors import RunError
from mic.evaluation.encoding import embed_texts, fresh_texts
from mic.files import locked

VECTORS = "vectors.f32"
# longer and shorter texts in turn, some of them twice
TEXTS = [" ".join(map(sentence, range(n, n + n % 4 + 1))) for n in [*range(70), 3, 8]]
ASKED = {"first": TEXTS[:30], "second": TEXTS[20:]}


def test_rows_are_those_that_the_encoder_gives_to_the_bit(encoder, tmp_path):
    embeddings = embed_texts(encoder, ASKED, 4, tmp_path, "encoding")
    for task, texts in fresh_texts(ASKED).items():
        expected = dict(zip(texts, encoder.embed(texts, batch_size=4), strict=True))
        for text, row in zip(ASKED[task], embeddings[task][:], strict=True):
            if text in expected:
                assert torch.equal(row, expected[text])
    assert torch.equal(embeddings["first"][20:], embeddings["second"][:10])  # of one file
    assert embeddings["second"].shape == (52, 32)
    assert (tmp_path / VECTORS).stat().st_size == 70 * 32 * 4
    assert torch.equal(embeddings["first"][[5, 1]], embeddings["first"][:][[5, 1]])
    assert embeddings["first"][[]].shape == (0, 32)


@pytest.mark.parametrize("batch_size", [2, 4, 9])
def test_encoding_goes_on_in_the_middle_of_a_task(encoder, tmp_path, monkeypatch, batch_size):
    whole = embed_texts(encoder, ASKED, 4, tmp_path / "whole", "encoding")
    calls, embed = [], Encoder.embed

    def interrupted(self, texts, **options):
        if calls:
            raise KeyboardInterrupt
        calls.append(texts)
        return embed(self, texts, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "embed", interrupted)
        patch.setattr("mic.evaluation.encoding.BLOCK_BATCHES", 2)
        with pytest.raises(KeyboardInterrupt):
            embed_texts(encoder, ASKED, 4, tmp_path / "cut", "encoding")
    assert len(EmbeddingStore(tmp_path / "cut")) == 8
    calls.clear()
    monkeypatch.setattr("mic.evaluation.encoding.BLOCK_BATCHES", 1)
    monkeypatch.setattr(
        Encoder, "embed", lambda self, some, **o: calls.extend(some) or embed(self, some, **o)
    )
    again = embed_texts(encoder, ASKED, batch_size, tmp_path / "cut", "encoding")
    assert len(calls) == len(set(calls)) == 62  # what was done is not done again
    for task, rows in whole.items():
        torch.testing.assert_close(again[task][:], rows[:])
        assert batch_size != 4 or torch.equal(again[task][:], rows[:])
        assert again[task].file_rows.tolist() == rows.file_rows.tolist()  # in the texts' order
    calls.clear()
    embed_texts(encoder, ASKED, 4, tmp_path / "cut", "encoding")
    assert not calls


def test_a_file_that_is_not_what_was_written_is_written_anew(encoder, tmp_path):
    expected = embed_texts(encoder, ASKED, 4, tmp_path, "encoding")["second"][:]
    for break_it in (
        lambda: (tmp_path / VECTORS).unlink(),
        lambda: (tmp_path / VECTORS).write_bytes(b"other"),
        lambda: [(tmp_path / META).write_text("?"), (tmp_path / VECTORS).write_bytes(bytes(8960))],
        lambda: (tmp_path / KEYS).write_bytes(bytes(30)),
    ):
        break_it()
        assert torch.equal(embed_texts(encoder, ASKED, 4, tmp_path, "again")["second"][:], expected)


def test_two_processes_do_not_write_one_file(encoder, tmp_path):
    with locked(tmp_path / LOCK), pytest.raises(RunError, match="another process is filling it"):
        embed_texts(encoder, ASKED, 4, tmp_path, "encoding")


def test_a_full_disk_is_said_and_what_is_written_is_kept(encoder, tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 2:  # the first block's two files fit
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(RunError, match=r"No space left on device; free some space .* is kept"):
            embed_texts(encoder, ASKED, 4, tmp_path, "encoding")
    assert len(EmbeddingStore(tmp_path)) == 30  # the first task's
    rows = embed_texts(encoder, ASKED, 4, tmp_path, "encoding")
    whole = embed_texts(encoder, ASKED, 4, tmp_path / "whole", "encoding")
    assert all(torch.equal(rows[task][:], whole[task][:]) for task in ASKED)


def test_embeddings_that_are_not_finite_are_refused(encoder, tmp_path):
    with torch.no_grad():
        encoder.backbone.embeddings.word_embeddings.weight.fill_(torch.nan)
    with pytest.raises(RunError, match="embeddings of first are not finite; the model diverged"):
        embed_texts(encoder, ASKED, 4, tmp_path, "encoding")
    assert len(EmbeddingStore(tmp_path)) == 0
