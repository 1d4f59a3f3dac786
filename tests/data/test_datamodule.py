"""What the data module claims: columns to batches, a seeded split and order, whole batches."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from sentences import answer, sentence
from transformers import AutoTokenizer

from mic.config.loading import load
from mic.config.schema_data import CorpusConfig, DataConfig
from mic.data.batch import Batch, Collate, signed
from mic.data.datamodule import PairDataModule, Split
from mic.data.indexed import Row
from mic.data.sources.examples import hash_text
from mic.encoder.tokenizer import Tokenize
from mic.errors import InputError
from mic.train.module import MICModule

PAIR, TRIPLE = ["anchor", "positive"], ["anchor", "positive", "negative"]


@pytest.fixture(scope="module")
def tokenize(model_folder: Path) -> Tokenize:
    return Tokenize(AutoTokenizer.from_pretrained(model_folder), max_length=16)


def pairs(
    file: Path,
    tokenize: Tokenize,
    columns: Sequence[str] = PAIR,
    *,
    seed: int = 0,
    batch_size: int = 16,
    **settings: object,
) -> PairDataModule:
    config = DataConfig(train={"pairs": CorpusConfig(str(file), list(columns))}, **settings)
    return PairDataModule(config, tokenize, batch_size=batch_size, seed=seed)


def ids(batches: Sequence[Batch]) -> list[list[list[list[int]]]]:
    return [[tokens["input_ids"].tolist() for tokens in batch.columns] for batch in batches]


def texts(split: Split) -> list[tuple[str, ...]]:
    return list(split.texts())


def validated(data: PairDataModule) -> list[tuple[str, ...]]:
    """The texts of the first validation batch."""
    drawn = data.validation_order.batch(0, 0)
    rows = data.validation.row_index.rows(drawn.numbers.tolist(), drawn.partners.tolist())
    return [row.texts for row in rows]


def order(data: PairDataModule) -> list[list[list[list[int]]]]:
    return ids(list(data.train_dataloader()))


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """100 pairs and 5 rows whose positive is missing."""
    file = tmp_path / "numbered.jsonl"
    rows = [{"anchor": sentence(n), "positive": answer(n) if n % 21 else ""} for n in range(105)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("columns", [PAIR, TRIPLE], ids=["pairs", "hard negatives"])
def test_each_column_becomes_the_tokens_of_its_texts(
    pairs_file: Path, tokenize: Tokenize, columns: list[str]
) -> None:
    data = pairs(pairs_file, tokenize, columns)
    batch = next(iter(data.val_dataloader()))
    rows = validated(data)
    assert len(batch.columns) == len(columns)
    for tokens, texts in zip(batch.columns, zip(*rows, strict=True), strict=True):
        expected = tokenize.widen(tokenize(texts), tokens["input_ids"].shape[1])
        assert tokens.keys() == expected.keys()
        assert all(torch.equal(tokens[name], expected[name]) for name in tokens)


def test_a_single_column_stands_twice(pairs_file: Path, tokenize: Tokenize) -> None:
    batch = next(iter(pairs(pairs_file, tokenize, ["anchor"]).train_dataloader()))
    first, second = batch.columns
    assert first is second
    assert first["input_ids"].shape[0] == 16


def test_a_batch_is_padded_to_its_longest_text_and_no_further(tokenize: Tokenize) -> None:
    rows = [Row(("the cat", "a dog and")), Row(("the cat sees a dog", "a"))]
    queries, answers = Collate(tokenize)(rows).columns
    assert queries["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0, 0], [1] * 7]
    assert answers["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    padding = answers["input_ids"][answers["attention_mask"] == 0]
    assert padding.tolist() == [tokenize.tokenizer.pad_token_id] * 2


def test_a_long_text_is_cut_and_keeps_its_last_mark(tokenize: Tokenize) -> None:
    long, short = Collate(tokenize)([Row(("cat " * 50, "cat"))]).columns
    assert long["input_ids"].shape == (1, 16)
    assert long["input_ids"][0, -1] == short["input_ids"][0, -1]


def test_no_training_batch_is_smaller_than_asked(pairs_file: Path, tokenize: Tokenize) -> None:
    data = pairs(pairs_file, tokenize, batch_size=50)
    assert len(data.train) == 180
    assert [batch.size for batch in data.train_dataloader()] == [50] * 3
    assert [batch.size for batch in data.val_dataloader()] == [20]


@pytest.mark.parametrize(("rows", "asked", "held"), [(100, 500, 10), (99, 500, 9), (100, 3, 3)])
def test_at_most_a_tenth_is_held_out(
    tmp_path: Path, tokenize: Tokenize, rows: int, asked: int, held: int
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,more\n" + "".join(f"{number},x\n" for number in range(rows)))
    data = pairs(file, tokenize, ["text"], batch_size=2, validation_rows=asked)
    training, out = texts(data.train), texts(data.validation)
    assert len(out) == held
    assert sorted(training + out) == sorted((str(number),) for number in range(rows))


def test_the_split_depends_on_the_seed_alone(pairs_file: Path, tokenize: Tokenize) -> None:
    torch.manual_seed(1)
    first = pairs(pairs_file, tokenize, seed=5)
    torch.manual_seed(2)
    again = pairs(pairs_file, tokenize, seed=5)
    other = pairs(pairs_file, tokenize, seed=6)
    assert texts(first.validation) == texts(again.validation)
    assert texts(first.train) == texts(again.train)
    assert texts(first.validation) != texts(other.validation)
    assert not set(texts(first.train)) & set(texts(first.validation))


def test_validation_sources_leave_the_training_rows_whole(
    pairs_file: Path, numbered: Path, tokenize: Tokenize
) -> None:
    validation = {"numbered": CorpusConfig(str(numbered), PAIR)}
    data = pairs(pairs_file, tokenize, validation=validation, on_bad_row="skip")
    assert (len(data.train), len(data.validation), data.skipped) == (200, 100, 5)


def test_the_order_depends_on_the_seed_alone(pairs_file: Path, tokenize: Tokenize) -> None:
    torch.manual_seed(1)
    first = order(pairs(pairs_file, tokenize, seed=5))
    torch.manual_seed(2)
    assert order(pairs(pairs_file, tokenize, seed=5)) == first
    assert order(pairs(pairs_file, tokenize, seed=6)) != first


def test_every_epoch_has_another_order_and_leaves_out_other_rows(
    pairs_file: Path, tokenize: Tokenize
) -> None:
    data = pairs(pairs_file, tokenize, ["anchor"], batch_size=50)
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.batch_sampler.sampler.set_epoch(epoch)
        # all of one length
        epochs.append([tuple(row) for batch in ids(list(loader)) for row in batch[0]])
    assert all(len(set(rows)) == 150 for rows in epochs)
    assert epochs[0] != epochs[1]
    assert set(epochs[0]) != set(epochs[1])


def test_validation_has_the_same_batches_every_time(pairs_file: Path, tokenize: Tokenize) -> None:
    data = pairs(pairs_file, tokenize)
    loader = data.val_dataloader()
    first = ids(list(loader))
    order(data)
    loader.batch_sampler.sampler.set_epoch(1)
    assert ids(list(loader)) == first


def test_workers_give_the_same_batches(pairs_file: Path, tokenize: Tokenize) -> None:
    alone = pairs(pairs_file, tokenize, TRIPLE)
    helped = pairs(pairs_file, tokenize, TRIPLE, num_workers=2)
    assert order(alone) == order(helped)


def test_sources_are_joined_and_hashed(
    pairs_file: Path, numbered: Path, tokenize: Tokenize
) -> None:
    sources = {
        "pairs": CorpusConfig(str(pairs_file), PAIR),
        "few": CorpusConfig(str(numbered), PAIR, limit=9),
    }
    held = {"numbered": CorpusConfig(str(numbered), PAIR)}
    config = DataConfig(train=sources, validation=held, on_bad_row="skip")
    data = PairDataModule(config, tokenize, batch_size=16)
    assert (len(data.train), len(data.validation), data.skipped) == (208, 100, 6)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (pairs_file, numbered)]
    assert data.hashes == {
        "train/pairs": digests[0],
        "train/few": digests[1],
        "validation/numbered": digests[1],
    }


def test_a_bad_row_is_refused_unless_skipped(numbered: Path, tokenize: Tokenize) -> None:
    with pytest.raises(InputError, match=r"numbered\.jsonl: row 1: column 'positive' is empty"):
        pairs(numbered, tokenize)
    assert pairs(numbered, tokenize, on_bad_row="skip").skipped == 5


def test_a_batch_above_the_rows_is_refused(pairs_file: Path, tokenize: Tokenize) -> None:
    message = r"data\.train: 180 rows for trainer\.batch_size=181; give more rows or a smaller"
    with pytest.raises(InputError, match=message):
        pairs(pairs_file, tokenize, batch_size=181)
    assert len(pairs(pairs_file, tokenize, batch_size=180).train_dataloader()) == 1


def test_too_few_rows_to_hold_out_any_are_refused(pairs_file: Path, tokenize: Tokenize) -> None:
    config = DataConfig(train={"pairs": CorpusConfig(str(pairs_file), PAIR, limit=19)})
    with pytest.raises(InputError, match=r"data\.validation: 1 row"):
        PairDataModule(config, tokenize, batch_size=2)


def test_no_source_is_refused_with_the_keys_to_set(tokenize: Tokenize) -> None:
    with pytest.raises(InputError, match=r"data\.train: no source; set data\.train\.NAME\.path="):
        PairDataModule(DataConfig(), tokenize, batch_size=2)


def test_sources_of_different_column_counts_are_refused(
    pairs_file: Path, tokenize: Tokenize
) -> None:
    sources = {"a": CorpusConfig(str(pairs_file), PAIR), "b": CorpusConfig(str(pairs_file), TRIPLE)}
    with pytest.raises(InputError, match=r"data\.train: corpora of \{'a': 2, 'b': 3\} columns"):
        PairDataModule(DataConfig(train=sources), tokenize, batch_size=2)


# Numbers of texts and groups, teachers, chunks


def test_equal_texts_have_equal_numbers_in_every_column_and_process(tokenize: Tokenize) -> None:
    rows = [Row(("a", "b")), Row(("b", "c")), Row(("a", "the cat"))]
    ids = Collate(tokenize)(rows).ids
    texts = [text for row in rows for text in row.texts]
    flat = ids.flatten().tolist()
    assert [[x == y for y in flat] for x in flat] == [[x == y for y in texts] for x in texts]
    assert flat[-1] == signed(hash_text("the cat")) == -6114696941094284552
    twice = Collate(tokenize)([Row(("a",)), Row(("b",))]).ids
    assert torch.equal(twice[:, 0], twice[:, 1])


def test_a_group_is_a_column_of_its_corpus_and_ends_there(
    tmp_path: Path, tokenize: Tokenize
) -> None:
    file = tmp_path / "grouped.jsonl"
    rows = [{"anchor": sentence(n), "positive": answer(n), "topic": n // 10} for n in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = CorpusConfig(str(file), PAIR, group="topic")
    two = CorpusConfig(str(file), PAIR, group="topic", limit=10)
    bare = CorpusConfig(str(file), PAIR, limit=2)
    config = DataConfig(
        train={"one": corpus, "two": two, "three": bare}, validation={"one": corpus}
    )
    data = PairDataModule(config, tokenize, batch_size=4)
    numbers = list(range(len(data.train)))
    read = data.train.row_index.rows(numbers, [-1] * len(numbers))
    groups = data.collate(data.train)(read).groups.tolist()
    marks = [("one", n // 10) for n in range(40)] + [("two", 0)] * 10 + ["first", "second"]
    assert [[x == y for y in groups] for x in groups] == [[x == y for y in marks] for x in marks]
    for batch in data.train_dataloader():
        assert len(set(batch.groups.tolist())) == 4


def test_without_a_group_column_a_batch_has_no_groups(pairs_file, tokenize: Tokenize) -> None:
    assert next(iter(pairs(pairs_file, tokenize).train_dataloader())).groups is None


@pytest.mark.parametrize(
    ("group", "message"),
    [("topic", "no column 'topic'"), ("empty", "row 1.*'empty'.*no identifier")],
)
def test_a_group_that_is_not_there_is_refused(tmp_path, tokenize: Tokenize, group, message) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"anchor": "a", "positive": "b", "empty": ""}) + "\n")
    with pytest.raises(InputError, match=message):
        PairDataModule(
            DataConfig(train={"x": CorpusConfig(str(file), PAIR, group=group)}),
            tokenize,
            batch_size=2,
        )


def test_a_teachers_view_of_the_texts_travels_with_them(pairs_file, tokenize: Tokenize) -> None:
    data = pairs(pairs_file, tokenize, TRIPLE)
    data.prepare = lambda texts: torch.tensor([[len(text)] for text in texts])
    batch = next(iter(data.val_dataloader()))
    assert [column.flatten().tolist() for column in batch.prepared] == [
        [len(text) for text in column] for column in zip(*validated(data), strict=True)
    ]


def test_chunks_are_the_batch_in_order(pairs_file, tokenize: Tokenize) -> None:
    data = pairs(pairs_file, tokenize, TRIPLE)
    data.prepare = tokenize
    batch = next(iter(data.train_dataloader()))
    parts = batch.chunks(6)
    assert [part.size for part in parts] == [6, 6, 4]
    assert torch.equal(torch.cat([part.ids for part in parts]), batch.ids)
    for kind in ("columns", "prepared"):
        for column, whole in enumerate(getattr(batch, kind)):
            for name, value in whole.items():
                joined = torch.cat([getattr(part, kind)[column][name] for part in parts])
                assert torch.equal(joined, value)


def test_ranks_share_the_global_batch_and_know_the_sizes_of_all(pairs_file, tokenize) -> None:
    alone = list(pairs(pairs_file, tokenize).train_dataloader())
    assert {tuple(batch.sizes) for batch in alone} == {(16,)}
    ranks = []
    for rank in range(3):
        data = pairs(pairs_file, tokenize)
        data.trainer = SimpleNamespace(world_size=3, global_rank=rank, lightning_module=None)
        ranks.append(list(data.loader(data.train, data.sampler(data.order))))
    for whole, *slices in zip(alone, *ranks, strict=True):
        assert [part.size for part in slices] == [6, 5, 5] == slices[0].sizes == slices[2].sizes
        numbers = sorted(whole.ids.tolist())
        assert sorted(row for part in slices for row in part.ids.tolist()) == numbers


# Tokens ahead, lengths, columns in one pass


@pytest.mark.parametrize("columns", [["anchor"], PAIR, TRIPLE])
def test_tokens_kept_ahead_are_those_made_on_the_fly(pairs_file, tokenize, columns) -> None:
    ahead = pairs(pairs_file, tokenize, columns, window=0)
    config = DataConfig(
        train={"pairs": CorpusConfig(str(pairs_file), columns)}, window=0, tokenize="fly"
    )
    fly = PairDataModule(config, tokenize, batch_size=16)
    for first, other in zip(ahead.train_dataloader(), fly.train_dataloader(), strict=True):
        for stored, computed in zip(first.columns, other.columns, strict=True):
            assert stored.keys() == computed.keys()
            assert all(torch.equal(stored[name], computed[name]) for name in stored)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_stands_where_the_tokenizer_puts_it(model_folder: Path, side: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.padding_side = side
    tokenize = Tokenize(tokenizer, 16, multiple=8)
    texts = ["the cat", "the cat sees a dog and that"]
    tokenized = tokenize(texts)
    batched = tokenize.batch([np.array(ids, np.int32) for ids in tokenize.ids(texts)])
    assert tokenized.keys() == batched.keys()
    assert all(torch.equal(tokenized[name], batched[name]) for name in tokenized)
    assert tokenized["input_ids"].shape == (2, 16)
    short = tokenized["attention_mask"][0].tolist()
    assert short == ([0] * 12 + [1] * 4 if side == "left" else [1] * 4 + [0] * 12)


@pytest.mark.parametrize(
    ("multiple", "longest", "expected"), [(1, 5, 5), (8, 5, 8), (8, 8, 8), (8, 17, 20), (8, 20, 20)]
)
def test_lengths_are_rounded_up_but_not_above_the_longest_allowed(
    tokenize: Tokenize, multiple: int, longest: int, expected: int
) -> None:
    assert Tokenize(tokenize.tokenizer, 20, multiple).rounded(longest) == expected


def test_batches_of_like_length_hold_less_padding(tmp_path: Path, tokenize: Tokenize) -> None:
    file = tmp_path / "lengths.jsonl"
    rows = [
        {"anchor": "a " * (1 + n % 13) + sentence(n), "positive": "the " * (n * 7 % 11) + answer(n)}
        for n in range(400)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    long = Tokenize(tokenize.tokenizer, 64)

    def padding(window: int) -> int:
        loader = pairs(file, long, window=window).train_dataloader()
        masks = [tokens["attention_mask"] for batch in loader for tokens in batch.columns]
        return sum(int((1 - mask).sum()) for mask in masks)

    assert padding(2**16) < padding(0) / 2


def test_a_budget_of_tokens_takes_the_place_of_the_batch_size(pairs_file, tokenize) -> None:
    config = DataConfig(train={"pairs": CorpusConfig(str(pairs_file), PAIR)})
    data = PairDataModule(config, tokenize, batch_size=16, batch_tokens=256)
    batches = list(data.train_dataloader())
    for batch in batches:
        assert sum(tokens["input_ids"].numel() for tokens in batch.columns) <= 256
    assert sum(batch.size for batch in batches) + data.order.left_out(0) == 180
    with pytest.raises(InputError, match=r"batch_tokens=20: two rows of 2 texts of \d+ tokens are"):
        PairDataModule(config, tokenize, batch_size=16, batch_tokens=20)


@pytest.mark.parametrize("way", ["ahead", "fly"])
def test_sentences_among_pairs_stand_twice(tmp_path: Path, pairs_file, tokenize, way: str) -> None:
    lines = (json.dumps({"text": f"{sentence(n)} and"}) + "\n" for n in range(200, 260))
    (tmp_path / "alone.jsonl").write_text("".join(lines))
    alone = CorpusConfig(str(tmp_path / "alone.jsonl"), ["text"])
    both = {"alone": alone, "pairs": CorpusConfig(str(pairs_file), PAIR)}
    data = PairDataModule(DataConfig(train=both, tokenize=way), tokenize, batch_size=16)
    texts_seen = [
        (batch, twice)
        for batch in data.train_dataloader()
        for twice in [batch.ids[:, 0] == batch.ids[:, 1]]
    ]
    assert sum(int(twice.sum()) for _, twice in texts_seen) > 40
    batch, twice = next(pair for pair in texts_seen if pair[1].any() and not pair[1].all())
    queries, answers = (tokens["input_ids"][twice] for tokens in batch.columns)
    width = min(queries.shape[1], answers.shape[1])
    assert torch.equal(queries[:, :width], answers[:, :width])


# What cannot be batched


def test_validation_rows_that_cannot_be_kept_apart_meet(tmp_path: Path, tokenize) -> None:
    """Rows in the order of their groups, as a file's first rows often are."""
    file = tmp_path / "grouped.jsonl"
    rows = [{"anchor": sentence(n), "positive": answer(n), "topic": n // 50} for n in range(200)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = CorpusConfig(str(file), PAIR, group="topic")
    few = CorpusConfig(str(file), PAIR, group="topic", limit=60)
    config = DataConfig(train={"all": corpus}, validation={"few": few})
    data = PairDataModule(config, tokenize, batch_size=4)
    assert [len(set(batch.groups.tolist())) for batch in data.train_dataloader()] == [4] * 50
    met = list(data.val_dataloader())
    assert sum(batch.size for batch in met) == 60
    assert min(len(set(batch.groups.tolist())) for batch in met) < 4


def test_groups_too_few_for_a_batch_are_refused_with_row_and_cure(tmp_path, tokenize) -> None:
    file = tmp_path / "labelled.jsonl"
    rows = [{"text": sentence(n), "label": "rare" if n < 20 else n % 3} for n in range(200)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(train={"words": CorpusConfig(str(file), ["text"], label="label")})
    assert len(PairDataModule(config, tokenize, batch_size=3).train_dataloader()) > 50
    with pytest.raises(InputError) as caught:
        PairDataModule(config, tokenize, batch_size=5)
    message = str(caught.value)
    assert message.startswith("data.train.words: no batch of 5 rows that share neither text nor")
    assert "the group of 'the " in message
    assert "data.keep_apart=false" in message
    config.keep_apart = False
    assert len(PairDataModule(config, tokenize, batch_size=5).train_dataloader()) == 36


class Whole(NamedTuple):
    """A run of 27 steps, in epochs of 11 batches, that nothing interrupts."""

    batches: list[list[list[int]]]
    checkpoints: Path  # a folder, named by their steps


@pytest.fixture(scope="module")
def whole(
    tiny: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Whole]:
    """That run with a number of workers, once."""

    @cache
    def run(workers: int) -> Whole:
        folder = tmp_path_factory.mktemp(f"whole-{workers}")
        saving = Keep(folder, *((1, 11, 15, 22) if workers == 0 else (15,)))
        return Whole(batches_seen(tiny(folder), workers, [saving]), folder)

    return run


@pytest.mark.parametrize(("step", "workers"), [(15, 0), (15, 2), (11, 0), (22, 0), (1, 0)])
def test_a_resumed_loader_begins_after_the_last_batch_trained_on(
    whole: Callable[[int], Whole], tiny_config: Path, step: int, workers: int
) -> None:
    """Through Lightning itself; some resume between two epochs."""
    batches, folder = whole(workers)
    assert len({str(batch) for batch in batches}) == 27  # no two alike
    seen = batches_seen(tiny_config, workers, resume=folder / f"{step}.ckpt")
    assert seen == batches[step:]


def test_a_finished_run_goes_on_with_the_next_batch(whole, tiny_config, tmp_path) -> None:
    file = tmp_path / "end.ckpt"
    begun = batches_seen(tiny_config, 0, steps=15, save=file)
    assert begun + batches_seen(tiny_config, 0, resume=file) == whole(0).batches


def test_a_limit_on_batches_ends_an_epoch_and_is_kept_on_resuming(
    whole, tiny_config, tmp_path
) -> None:
    limited = batches_seen(tiny_config, 0, [Keep(tmp_path, 9)], limit_train_batches=5)
    full = whole(0).batches
    assert limited[:10] == full[:5] + full[11:16]
    file = tmp_path / "9.ckpt"
    assert batches_seen(tiny_config, 0, resume=file, limit_train_batches=5) == limited[9:]


@pytest.mark.parametrize("teacher", ["none", "frozen"])
def test_a_trainer_needs_a_module_and_a_data_module_and_no_further_calls(
    tiny_config: Path, model_folder: Path, teacher: str
) -> None:
    learning = [f"teacher.name={model_folder}", "objective.distillation.weight=1"]
    overrides = [f"teacher.kind={teacher}", *(learning if teacher != "none" else [])]
    module = MICModule(load(tiny_config, *overrides))
    data = PairDataModule(module.config.data, module.encoder.tokenize, batch_size=16)
    seen = Prepared()
    trainer = Trainer(
        max_steps=2,
        logger=False,
        callbacks=[seen],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    assert trainer.global_step == 2
    assert seen.prepared == [teacher != "none"] * 2


class Prepared(Callback):
    """Whether each training batch holds what a teacher takes of its texts."""

    def __init__(self) -> None:
        self.prepared: list[bool] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.prepared.append(batch.prepared is not None)


def test_a_checkpoint_of_other_rows_is_refused_unless_allowed(pairs_file, numbered, tokenize):
    state = pairs(pairs_file, tokenize).state_dict()
    config = DataConfig(
        train={"pairs": CorpusConfig(str(numbered), PAIR)}, on_bad_row="skip", validation_rows=5
    )
    data = PairDataModule(config, tokenize, batch_size=16)
    with pytest.raises(
        InputError, match=r"^data\.train\.pairs: holds other rows than when the run"
    ):
        data.load_state_dict(state)
    PairDataModule(config, tokenize, batch_size=16, allow_data_change=True).load_state_dict(state)


class Keep(Callback):
    """A checkpoint after each of some steps, as ModelCheckpoint makes it."""

    def __init__(self, folder: Path, *steps: int) -> None:
        self.folder, self.steps = folder, steps

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def batches_seen(
    config: Path,
    workers: int,
    callbacks: Sequence[Callback] = (),
    *,
    steps: int = 27,
    save: Path | None = None,
    resume: Path | None = None,
    **options: object,
) -> list[list[list[int]]]:
    """The numbers of the texts of every batch that a run trains on."""
    module = MICModule(load(config, "trainer.max_steps=27", f"data.num_workers={workers}"))
    data = PairDataModule(module.config.data, module.encoder.tokenize, batch_size=16)
    seen: list[list[list[int]]] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            seen.append(batch.ids.tolist())

    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        callbacks=[Watch(), *callbacks],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        **options,
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    if save:
        trainer.save_checkpoint(save)
    return seen
