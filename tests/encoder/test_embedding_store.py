"""A teacher's embeddings on disk: each computed once, found by text, whole after any kill."""

import copy
import json
import multiprocessing
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentences import answer, sentence
from tiny_model import WIDTH
from tokenizers import AddedToken
from torch.utils.data import DataLoader

from mic.encoder import teacher
from mic.encoder.embedding_store import (
    ENTRY,
    LOCK,
    BoundedStore,
    EmbeddingStore,
    EncodedBlock,
    StoreMeta,
    digests,
    fill_store,
    free_rows,
)
from mic.encoder.encoder import Encoder, add_head, encoder_fingerprint
from mic.encoder.teacher import fill_teacher_store
from mic.errors import InputError, RunError
from mic.files import cache_folder, locked

TEXTS = [f"{sentence(n)} and {answer(n * 7)}" if n % 3 else sentence(n) for n in range(20)]
FILES = ("keys.bin", "vectors.f16")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that any encoder really encodes from now on, in order."""
    texts: list[str] = []
    embed = Encoder.embed

    def counting(self, some, **options):
        texts.extend(some)
        return embed(self, some, **options)

    monkeypatch.setattr(Encoder, "embed", counting)
    return texts


def assert_equals(cache, encoder, texts=TEXTS):
    """The cache gives what the encoder gives for each text alone, rounded to float16."""
    embeddings, expected = cache(texts), torch.cat([encoder.embed([text]) for text in texts])
    assert embeddings.dtype == torch.float16
    torch.testing.assert_close(embeddings.float(), expected, rtol=2**-10, atol=1e-6)


def whole(texts):
    """The sizes of a whole store of texts."""
    return {"keys.bin": ENTRY.itemsize * len(texts), "vectors.f16": 2 * WIDTH * len(texts)}


def sizes(folder):
    return {name: (folder / name).stat().st_size for name in FILES}


def changed(encoder, factor=1.5):
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        other.backbone.embeddings.word_embeddings.weight.mul_(factor)
    return other


# What a cache gives


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_cache_gives_what_the_encoder_gives_to_the_precision_of_float16(
    encoder, folder, batch_size
):
    cache = fill_teacher_store(folder, encoder, TEXTS, batch_size)
    assert_equals(cache, encoder)
    assert (len(cache), cache.width) == (len(TEXTS), WIDTH)
    norms = cache(TEXTS).float().norm(dim=1)
    assert (norms - 1).abs().min() > 0.1  # as the encoder gave them, not scaled to length 1


def test_a_look_up_keeps_the_order_and_the_repetitions(encoder, folder):
    cache = fill_teacher_store(folder, encoder, TEXTS)
    some = [TEXTS[7], TEXTS[2], TEXTS[7], TEXTS[19], TEXTS[0]]
    every = dict(zip(TEXTS, cache(TEXTS), strict=True))
    assert torch.equal(cache(some), torch.stack([every[text] for text in some]))
    assert cache([]).shape == (0, WIDTH)


def test_dropout_does_not_reach_the_cache(encoder, folder):
    assert_equals(fill_teacher_store(folder, encoder.train(), TEXTS), encoder)


def test_the_files_are_the_entries_and_the_rows_that_the_format_promises(encoder, folder):
    cache = fill_teacher_store(folder, encoder, TEXTS)
    assert json.loads((folder / "meta.json").read_text()) == {
        "format": 2,
        "fingerprint": encoder_fingerprint(encoder),
        "width": WIDTH,
        "dtype": "float16",
    }
    keys, vectors = (folder / "keys.bin").read_bytes(), (folder / "vectors.f16").read_bytes()
    rows = np.frombuffer(vectors, "<f2").reshape(-1, WIDTH)
    assert len(keys) == 24 * len(TEXTS) == 24 * len(rows)
    for text, vector in zip(TEXTS, cache(TEXTS), strict=True):
        start = keys.index(blake2b(text.encode("utf-8"), digest_size=16).digest())
        assert start % 24 == 0
        row = int.from_bytes(keys[start + 16 : start + 24], "little")
        np.testing.assert_array_equal(rows[row], vector)


def test_rows_are_in_the_order_in_which_texts_are_asked_for_also_after_an_interruption(
    encoder, folder, monkeypatch
):
    monkeypatch.setattr(teacher, "BLOCK_TEXTS", 5)
    embed = Encoder.embed

    def failing(self, some, **options):
        if TEXTS[0] in some:
            raise KeyboardInterrupt
        return embed(self, some, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "embed", failing)
        with pytest.raises(KeyboardInterrupt):
            fill_teacher_store(folder, encoder, TEXTS, 1)
    assert 0 < len(EmbeddingStore(folder)) < len(TEXTS)
    cache = fill_teacher_store(folder, encoder, TEXTS, 1)
    assert cache.find(TEXTS).tolist() == [*range(len(TEXTS))]
    assert_equals(cache, encoder)


@pytest.mark.parametrize("used", [[], [0, 1, 2], [2, 5], [9]])
def test_missing_texts_take_the_first_rows_that_are_free(used):
    free = free_rows(np.array(used, np.int64), 4)
    assert free.tolist() == [row for row in range(20) if row not in used][:4]


def test_keys_that_end_in_zeros_are_found(encoder, folder):
    text = next(f"{n}" for n in range(9999) if digests([f"{n}"]).tobytes()[-1] == 0)
    cache = fill_teacher_store(folder, encoder, [text, "a cat"])
    assert cache.find([text]) == 0
    assert_equals(cache, encoder, [text, "a cat"])


# Nothing is encoded twice


def test_a_text_is_encoded_once_however_often_it_is_asked_for(encoder, folder, encoded):
    fill_teacher_store(folder, encoder, iter(TEXTS * 3), 4)
    assert sorted(encoded) == sorted(TEXTS)
    before = sizes(folder)
    fill_teacher_store(folder, encoder, reversed(TEXTS), 4)
    assert len(encoded) == len(TEXTS)
    assert sizes(folder) == before


def test_only_new_texts_are_encoded_and_the_old_ones_stay(encoder, folder, encoded):
    old = fill_teacher_store(folder, encoder, TEXTS[:8])(TEXTS[:8])
    cache = fill_teacher_store(folder, encoder, TEXTS)
    assert sorted(encoded) == sorted(TEXTS)
    assert torch.equal(cache(TEXTS[:8]), old)
    assert_equals(cache, encoder)
    assert len(cache) == len(TEXTS)


def test_the_longest_texts_come_first(encoder, folder, encoded):
    fill_teacher_store(folder, encoder, TEXTS, 4)
    lengths = [len(text) for text in encoded]
    assert lengths == sorted(lengths, reverse=True)


def test_no_texts_make_a_cache_of_none_that_can_be_filled(encoder, folder):
    cache = fill_teacher_store(folder, encoder, ())
    assert (len(cache), cache.width) == (0, WIDTH)
    with pytest.raises(InputError, match="no embedding of the text 'a cat'"):
        cache(["a cat"])
    assert_equals(fill_teacher_store(folder, encoder, TEXTS), encoder)


# Interruptions


@pytest.mark.parametrize("stop", [1, 6, 11, 19])
def test_a_fill_that_was_stopped_goes_on_after_its_last_block(
    encoder, folder, encoded, monkeypatch, stop
):
    monkeypatch.setattr(teacher, "BLOCK_TEXTS", 5)
    embed, count = Encoder.embed, 0

    def failing(self, some, **options):
        nonlocal count
        count += len(some)
        if count > stop:
            raise KeyboardInterrupt
        return embed(self, some, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "embed", failing)
        with pytest.raises(KeyboardInterrupt):
            fill_teacher_store(folder, encoder, TEXTS, 1)
    written = stop // 5 * 5
    assert len(EmbeddingStore(folder)) == written
    encoded.clear()
    cache = fill_teacher_store(folder, encoder, TEXTS, 1)
    assert sorted(encoded) == sorted(sorted(TEXTS, key=len, reverse=True)[written:])
    assert len(cache) == len(TEXTS)
    assert_equals(cache, encoder)


def test_slow_encoders_are_written_before_a_block_is_full(encoder, monkeypatch):
    monkeypatch.setattr(teacher, "BLOCK_SECONDS", 0.0)
    blocks = teacher.encode_half(encoder, TEXTS, 8)
    assert [len(block.texts) for block in blocks] == [8, 8, 4]


def fill_until_killed(encoder, folder, flush):
    """Fill in blocks of four and die, as at `kill -9`, when the disk is flushed that often."""
    torch.set_num_threads(1)
    teacher.BLOCK_TEXTS, count, fsync = 4, 0, os.fsync

    def dying(descriptor):
        nonlocal count
        count += 1
        if count == flush:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = dying
    fill_teacher_store(folder, encoder, TEXTS, 2)


@pytest.mark.parametrize("flush", [1, 2, 3, 6, 10])
def test_a_process_killed_while_it_writes_leaves_a_cache_that_goes_on(
    encoder, folder, encoded, flush
):
    process = multiprocessing.get_context("fork").Process(
        target=fill_until_killed, args=(encoder, folder, flush)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    written = flush // 2 * 4  # odd: the vectors of a block were on their way, and not yet its keys
    assert len(EmbeddingStore(folder)) == written
    cache = fill_teacher_store(folder, encoder, TEXTS)
    assert len(encoded) == len(TEXTS) - written
    assert len(cache) == len(TEXTS)
    assert sizes(folder) == whole(TEXTS)
    assert_equals(cache, encoder)


@pytest.mark.parametrize("lost", [0, 1, 23, 24, 2 * WIDTH - 1, 2 * WIDTH + 1, 300])
@pytest.mark.parametrize("name", FILES)
def test_a_half_written_end_is_ignored_and_then_mended(encoder, folder, encoded, name, lost):
    fill_teacher_store(folder, encoder, TEXTS)
    size = sizes(folder)[name]
    row = ENTRY.itemsize if name == "keys.bin" else 2 * WIDTH
    with (folder / name).open("ab") as file:
        file.truncate(max(size - lost, 0))
    written = max(size - lost, 0) // row
    assert len(EmbeddingStore(folder)) == written
    encoded.clear()
    cache = fill_teacher_store(folder, encoder, TEXTS)
    assert len(encoded) == len(TEXTS) - written
    assert_equals(cache, encoder)
    assert sizes(folder) == whole(TEXTS)


@pytest.mark.parametrize("name", FILES)
def test_bytes_beyond_the_last_whole_row_are_taken_away_before_more_is_written(
    encoder, folder, name
):
    fill_teacher_store(folder, encoder, TEXTS[:9])
    with (folder / name).open("ab") as file:
        file.write(b"\x7f" * 200)
    assert len(EmbeddingStore(folder)) == 9
    assert sizes(folder) != whole(TEXTS[:9])
    cache = fill_teacher_store(folder, encoder, TEXTS)
    assert len(cache) == len(TEXTS)
    assert sizes(folder) == whole(TEXTS)
    assert_equals(cache, encoder)


def test_entries_without_their_rows_are_gone_before_others_take_the_rows(encoder, folder):
    """Else a lost row, once written for another text, would be found by the first one's entry."""
    fill_teacher_store(folder, encoder, TEXTS[:9])
    with (folder / "vectors.f16").open("ab") as file:
        file.truncate(2 * WIDTH * 4)
    cache = fill_teacher_store(folder, encoder, TEXTS[9:])
    assert cache.missing(TEXTS) == TEXTS[4:9]
    assert sizes(folder) == whole(TEXTS[:4] + TEXTS[9:])
    assert_equals(fill_teacher_store(folder, encoder, TEXTS), encoder)


def test_vectors_are_on_the_disk_before_their_keys(encoder, folder, monkeypatch):
    flushed, fsync = [], os.fsync

    def noting(descriptor):
        fsync(descriptor)
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, sizes_now(folder)))

    def sizes_now(folder):
        return [(folder / name).stat().st_size for name in FILES]

    monkeypatch.setattr(os, "fsync", noting)
    fill_teacher_store(folder, encoder, TEXTS)
    rows = len(TEXTS)
    assert flushed == [
        ("vectors.f16", [0, 2 * WIDTH * rows]),
        ("keys.bin", [24 * rows, 2 * WIDTH * rows]),
    ]


def test_a_full_disk_is_one_error_and_corrupts_nothing(encoder, folder):
    before = fill_teacher_store(folder, encoder, TEXTS[:6])(TEXTS[:6])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * WIDTH * 8 + 5, limits[1]))
    try:
        with pytest.raises(RunError, match=f"{re.escape(str(folder))}: .* not be written: .*free"):
            fill_teacher_store(folder, encoder, TEXTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sizes(folder)["vectors.f16"] > 2 * WIDTH * 6  # it did write some of them
    assert torch.equal(EmbeddingStore(folder)(TEXTS[:6]), before)
    assert_equals(fill_teacher_store(folder, encoder, TEXTS), encoder)


# Processes


def test_two_processes_do_not_fill_one_folder_but_both_may_read_it(encoder, folder):
    fill_teacher_store(folder, encoder, TEXTS[:5])
    with locked(folder / LOCK):
        with pytest.raises(RunError, match=r"another process is filling it; wait"):
            fill_teacher_store(folder, encoder, TEXTS)
        assert_equals(fill_teacher_store(folder, encoder, TEXTS[:5]), encoder, TEXTS[:5])
    assert_equals(fill_teacher_store(folder, encoder, TEXTS), encoder)


def test_a_pickle_holds_the_path_and_no_rows(encoder, folder):
    cache = fill_teacher_store(folder, encoder, TEXTS)
    expected = cache(TEXTS)
    pickled = pickle.dumps(cache)
    assert len(pickled) < 300 + len(str(folder))
    for other in (pickle.loads(pickled), copy.deepcopy(cache)):
        assert torch.equal(other(TEXTS), expected)


def test_data_loader_workers_look_texts_up(encoder, folder):
    cache = fill_teacher_store(folder, encoder, TEXTS)
    loader = DataLoader(TEXTS, batch_size=6, num_workers=2, collate_fn=cache)
    assert torch.equal(torch.cat(list(loader)), cache(TEXTS))


# Which teacher


def test_the_fingerprint_is_that_of_the_weights_and_not_of_what_was_done(encoder, model_folder):
    expected = encoder_fingerprint(encoder)
    assert re.fullmatch("[0-9a-f]{64}", expected)
    encoder.embed(TEXTS)
    encoder.watch([0, 1])
    encoder.train().requires_grad_(False)
    assert encoder_fingerprint(encoder) == expected
    assert encoder_fingerprint(copy.deepcopy(encoder)) == expected


def test_the_fingerprint_does_not_depend_on_the_folder(encoder, model_folder, tmp_path):
    expected = encoder_fingerprint(encoder)
    other = shutil.copytree(model_folder, tmp_path / "elsewhere")
    assert encoder_fingerprint(Encoder.from_pretrained(other, max_length=32)) == expected


def test_a_pooler_that_begins_at_random_is_no_part_of_the_fingerprint(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "headless")
    weights = load_file(folder / "model.safetensors")
    remaining = {name: value for name, value in weights.items() if "pooler" not in name}
    save_file(remaining, folder / "model.safetensors", metadata={"format": "pt"})
    first, second = (Encoder.from_pretrained(folder) for _ in range(2))
    assert not torch.equal(first.backbone.pooler.dense.weight, second.backbone.pooler.dense.weight)
    assert encoder_fingerprint(first) == encoder_fingerprint(second)


def one_bit(encoder):
    encoder.backbone.encoder.layer[2].output.LayerNorm.bias.data[3] += 2**-20


def two_swapped(encoder):
    block = encoder.backbone.encoder.layer[1].attention.self
    block.query.weight.data, block.key.weight.data = block.key.weight.data, block.query.weight.data


def other_heads(encoder):
    encoder.backbone.config.num_attention_heads = 2


def other_token(encoder):
    encoder.tokenizer.add_tokens([AddedToken("zebra")])


def other_side(encoder):
    encoder.tokenizer.truncation_side = "left"


def other_buffer(encoder):
    encoder.backbone.embeddings.position_ids += 1


def a_head(encoder):
    add_head(encoder.model, WIDTH, WIDTH)


@pytest.mark.parametrize(
    "change",
    [
        one_bit,
        two_swapped,
        other_heads,
        other_token,
        other_side,
        other_buffer,
        a_head,
        lambda encoder: setattr(encoder.model[1], "pooling_mode", "cls"),
        lambda encoder: setattr(encoder, "max_length", 31),
        lambda encoder: encoder.half(),
    ],
)
def test_whatever_changes_an_embedding_changes_the_fingerprint(encoder, change):
    before = encoder_fingerprint(encoder)
    change(encoder)
    assert encoder_fingerprint(encoder) != before


def test_a_named_folder_of_another_teacher_is_refused_and_kept(encoder, folder, encoded):
    cache, other = fill_teacher_store(folder, encoder, TEXTS), changed(encoder)
    encoded.clear()
    both = f"{encoder_fingerprint(encoder)[:16]}, and this one is {encoder_fingerprint(other)[:16]}"
    for texts in (TEXTS, ["a cat"]):
        with pytest.raises(InputError, match=f"{both} .*; remove the folder, or set teacher.fold"):
            fill_teacher_store(folder, other, texts)
    assert encoded == []
    assert_equals(cache, encoder)


def test_in_the_users_cache_each_teacher_has_a_folder_of_its_own(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("MIC_CACHE", str(tmp_path / "mine"))
    other = changed(encoder)
    for filler in (encoder, other, encoder):
        cache = fill_teacher_store(None, filler, TEXTS)
        assert cache.folder == cache_folder() / "teachers-2" / encoder_fingerprint(filler)[:16]
        assert_equals(cache, filler)
    assert len(list((tmp_path / "mine" / "teachers-2").iterdir())) == 2


# Bad input


def test_a_text_that_is_not_there_is_named(encoder, folder):
    cache = fill_teacher_store(folder, encoder, TEXTS)
    long = "the zebra " * 20
    with pytest.raises(InputError) as caught:
        cache([TEXTS[0], long, TEXTS[1]])
    assert f"no embedding of the text {long[:60]!r}; start again" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 65505.0, -7e4])
def test_an_embedding_that_float16_cannot_hold_is_refused(encoder, folder, monkeypatch, value):
    embed = Encoder.embed

    def broken(self, some, **options):
        embeddings = embed(self, some, **options)
        embeddings[[text == TEXTS[4] for text in some], 3] = value
        return embeddings

    monkeypatch.setattr(Encoder, "embed", broken)
    named = re.escape(f"{TEXTS[4][:60]!r} holds {abs(value):g}, which float16")
    with pytest.raises(RunError, match=named):
        fill_teacher_store(folder, encoder, TEXTS)
    assert len(EmbeddingStore(folder)) == 0


def test_the_largest_number_of_float16_is_kept(encoder, folder, monkeypatch):
    monkeypatch.setattr(
        Encoder, "embed", lambda self, some, **_: torch.full((len(some), WIDTH), -65504.0)
    )
    assert (fill_teacher_store(folder, encoder, TEXTS)(TEXTS) == -65504).all()


def test_a_folder_of_other_files_is_refused_and_kept(encoder, folder):
    folder.mkdir()
    (folder / "thesis.txt").write_text("important")
    with pytest.raises(InputError, match=r"no meta.json of this version.*; remove the folder, or"):
        fill_teacher_store(folder, encoder, TEXTS)
    assert [file.name for file in folder.iterdir()] == ["thesis.txt"]


def test_rows_without_their_meta_are_not_adopted(encoder, folder):
    fill_teacher_store(folder, encoder, TEXTS)
    (folder / "meta.json").unlink()
    with pytest.raises(InputError, match=r"no meta.json"):
        fill_teacher_store(folder, changed(encoder), TEXTS)


def test_a_fill_killed_before_its_meta_was_written_can_begin_again(encoder, folder):
    folder.mkdir()
    (folder / "lock").touch()
    (folder / ".meta.json.partial").write_text('{"form')
    assert_equals(fill_teacher_store(folder, encoder, TEXTS), encoder)


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"format": 1}', "\\xff"])
def test_a_damaged_meta_is_refused(encoder, folder, content):
    fill_teacher_store(folder, encoder, TEXTS)
    (folder / "meta.json").write_bytes(content.encode().decode("unicode_escape").encode("latin-1"))
    for use in (lambda: fill_teacher_store(folder, encoder, TEXTS), lambda: EmbeddingStore(folder)):
        with pytest.raises(InputError, match=r"no meta.json of this version .*; remove the folder"):
            use()


@pytest.mark.parametrize("number", [1, 3])
def test_another_format_is_refused(encoder, folder, number):
    fill_teacher_store(folder, encoder, TEXTS)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "format": number}))
    with pytest.raises(InputError, match=rf"format {number} and not 2\); remove the folder"):
        fill_teacher_store(folder, encoder, TEXTS)


def test_a_place_where_no_folder_can_be_is_refused(encoder, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        with pytest.raises(InputError, match=rf"{place}: .*set teacher.folder"):
            fill_teacher_store(place, encoder, TEXTS)


def test_one_string_is_no_list_and_a_batch_is_not_empty(encoder, folder):
    with pytest.raises(TypeError, match="one string; give a list"):
        fill_teacher_store(folder, encoder, "the cat")
    with pytest.raises(InputError, match=r"teacher.batch_size=0: must be at least 1"):
        fill_teacher_store(folder, encoder, TEXTS, 0)
    assert not folder.exists()


# Size


def test_a_look_up_does_not_read_every_row(encoder, folder):
    """The 16 texts of a batch take about as long among 300,000 as among a few."""
    fill_teacher_store(folder, encoder, TEXTS)
    rows, rng = 300_000, np.random.default_rng(0)
    entries = np.zeros(rows, ENTRY)
    entries["key"] = np.frombuffer(rng.bytes(16 * rows), "S16")
    entries["row"] = np.arange(len(TEXTS), len(TEXTS) + rows)
    with (folder / "keys.bin").open("ab") as file:
        file.write(entries.tobytes())
    with (folder / "vectors.f16").open("ab") as file:
        file.truncate(2 * WIDTH * (rows + len(TEXTS)))
    cache = EmbeddingStore(folder)
    assert len(cache) == rows + len(TEXTS)
    assert_equals(cache, encoder)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        cache(TEXTS[:16])
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.01
    assert sys.getsizeof(cache._index.vectors) < 1000  # mapped, not read


# A store of what another step encodes


def lengths(texts):
    """A text's length and first letter, in blocks of two, the longest first."""
    texts = sorted(texts, key=len, reverse=True)
    for start in range(0, len(texts), 2):
        block = texts[start : start + 2]
        rows = np.array([[len(text), ord(text[0])] for text in block], np.float32)
        yield EncodedBlock(block, rows)


def test_rows_of_float32_are_read_from_the_disk_in_the_order_of_the_texts(folder):
    texts = ["a", "bbb", "cc", "dddd", "a", "ee"]
    store = fill_store(folder, StoreMeta("mine", 2, "float32"), texts, lengths)
    rows = store.embeddings(texts)
    assert rows.file_rows.tolist() == [0, 1, 2, 3, 0, 4]
    assert rows[1:4].tolist() == [[3, ord("b")], [2, ord("c")], [4, ord("d")]]
    assert (folder / "vectors.f32").stat().st_size == 5 * 2 * 4


def test_a_store_of_something_else_is_replaced_where_that_is_asked_for(folder):
    meta = StoreMeta("mine", 2, "float32")
    fill_store(folder, meta, ["a", "b"], lengths)
    for other in (StoreMeta("other", 2, "float32"), StoreMeta("mine", 2, "float16")):
        with pytest.raises(InputError, match="holds float32 embeddings of the model mine"):
            fill_store(folder, other, ["a"], lengths)
    other = StoreMeta("other", 2, "float32")
    store = fill_store(folder, other, ["a"], lengths, replace=True)
    assert (store.meta, len(store)) == (other, 1)
    (folder / "meta.json").write_text("?")
    assert len(fill_store(folder, meta, ["b"], lengths, replace=True)) == 1


# The user's cache, with a bound


@pytest.fixture
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIC_CACHE", str(tmp_path))
    return tmp_path


def test_embeddings_are_kept_within_their_bound_the_oldest_go_first(user_cache):
    calls: list[str] = []

    def encode(texts):
        calls.extend(texts)
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)

    store = BoundedStore("one", 2, encode, bound=3000)
    for letter in "abcdef":
        store.begin_task()
        texts = [letter * n for n in range(1, 21)]
        np.testing.assert_array_equal(store.embed([*texts, texts[0]])[:, 0], [*range(1, 21), 1])
        store.embed(["a"])  # used all the time, so never the oldest
    held = sum(file.stat().st_size for file in user_cache.rglob("*") if file.is_file())
    assert 0 < held <= 3000
    assert calls.count("a") == 1
    again = BoundedStore("one", 2, encode)
    before = len(calls)
    again.embed(["f" * 20, "a"])
    assert len(calls) == before
    again.embed(["b"])  # went, and is made anew
    assert len(calls) == before + 1


@pytest.mark.parametrize("name", ["meta.json", "keys.bin", "vectors.f32"])
def test_a_damaged_segment_is_encoded_anew(user_cache, name):
    calls: list[str] = []

    def encode(texts):
        calls.extend(texts)
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)

    BoundedStore("one", 2, encode).embed(["ff", "g"])
    (file,) = user_cache.rglob(name)
    file.write_bytes(file.read_bytes()[:-8])
    for _ in range(2):
        rows = BoundedStore("one", 2, encode).embed(["ff", "g"])
        np.testing.assert_array_equal(rows, [[2, ord("f")], [1, ord("g")]])
    assert len(calls) in (3, 4)  # of the two rows one was whole, or none; then both are


def test_a_segment_of_embeddings_that_are_not_finite_is_refused(user_cache):
    store = BoundedStore("two", 2, lambda texts: np.full((len(texts), 2), np.nan, np.float32))
    with pytest.raises(RunError, match="not finite"):
        store.embed(["x"])


def test_processes_that_write_the_same_segment_leave_one(user_cache):
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    stores = []

    def encode(texts):
        if len(stores) == 2:  # the second one is faster
            stores.pop().embed(["a", "b", "c"])
        return rows

    stores += [BoundedStore("one", 2, encode) for _ in range(2)]
    np.testing.assert_array_equal(stores[0].embed(["a", "b", "c"]), rows)
    (segment,) = (user_cache / "embeddings" / "one").iterdir()
    assert len(EmbeddingStore(segment)) == 3
    np.testing.assert_array_equal(BoundedStore("one", 2, encode).embed(["c"]), rows[2:])


def test_a_segment_that_another_process_removed_is_encoded_anew(user_cache):
    calls: list[str] = []

    def encode(texts):
        calls.extend(texts)
        return np.ones((len(texts), 2), np.float32)

    store = BoundedStore("one", 2, encode)
    store.embed(["a"])
    shutil.rmtree(user_cache / "embeddings")
    assert store.embed(["a"]).tolist() == [[1, 1]]
    assert calls == ["a", "a"]


def test_files_of_an_older_version_count_and_go_first(user_cache):
    old = user_cache / "embeddings" / "other" / "0.npy"
    old.parent.mkdir(parents=True)
    old.write_bytes(bytes(5000))
    os.utime(old, (0, 0))
    store = BoundedStore("one", 2, lambda texts: np.ones((len(texts), 2), np.float32), bound=3000)
    store.embed(["a"])
    assert not old.exists()
    assert len(store.read(np.empty((1, 2), np.float32), {digests(["a"]).tolist()[0]: [0]})) == 0
