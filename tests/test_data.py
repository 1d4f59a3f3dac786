"""What the data module claims: columns to batches, a seeded split and order, whole batches."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import answer, sentence

from mic.data import Batch, Collate, PairDataModule, Row, hold_out
from mic.encoder import Tokenize
from mic.errors import InputError
from mic.pretrained import read_tokenizer
from mic.settings import DataConfig, Source

PAIR, TRIPLE = ["anchor", "positive"], ["anchor", "positive", "negative"]


@pytest.fixture(scope="module")
def tokenize(model_folder: Path) -> Tokenize:
    return Tokenize(read_tokenizer(model_folder), max_length=16)


def pairs(
    file: Path,
    tokenize: Tokenize,
    columns: Sequence[str] = PAIR,
    *,
    seed: int = 0,
    batch_size: int = 16,
    **settings: object,
) -> PairDataModule:
    config = DataConfig(train={"pairs": Source(str(file), list(columns))}, **settings)
    return PairDataModule(config, tokenize, batch_size=batch_size, seed=seed)


def ids(batches: Sequence[Batch]) -> list[list[list[list[int]]]]:
    return [[tokens["input_ids"].tolist() for tokens in batch.columns] for batch in batches]


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
    rows = data.validation_rows[:16]
    assert len(batch.columns) == len(columns)
    for tokens, texts in zip(batch.columns, zip(*rows, strict=True), strict=True):
        expected = tokenize(texts)
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
    assert len(data.train_rows) == 180
    assert [batch.size for batch in data.train_dataloader()] == [50] * 3
    assert [batch.size for batch in data.val_dataloader()] == [20]


@pytest.mark.parametrize(("rows", "asked", "held"), [(100, 500, 10), (99, 500, 9), (100, 3, 3)])
def test_at_most_a_tenth_is_held_out(rows: int, asked: int, held: int) -> None:
    given = [Row((str(number),)) for number in range(rows)]
    kept, out = hold_out(given, asked, seed=0)
    assert len(out) == held
    assert sorted(kept + out) == sorted(given)


def test_the_split_depends_on_the_seed_alone(pairs_file: Path, tokenize: Tokenize) -> None:
    torch.manual_seed(1)
    first = pairs(pairs_file, tokenize, seed=5)
    torch.manual_seed(2)
    again = pairs(pairs_file, tokenize, seed=5)
    other = pairs(pairs_file, tokenize, seed=6)
    assert first.validation_rows == again.validation_rows
    assert first.train_rows == again.train_rows
    assert first.validation_rows != other.validation_rows
    assert not set(first.train_rows) & set(first.validation_rows)


def test_validation_sources_leave_the_training_rows_whole(
    pairs_file: Path, numbered: Path, tokenize: Tokenize
) -> None:
    validation = {"numbered": Source(str(numbered), PAIR)}
    data = pairs(pairs_file, tokenize, validation=validation, on_bad_row="skip")
    assert (len(data.train_rows), len(data.validation_rows), data.skipped) == (200, 100, 5)


def test_the_order_depends_on_the_seed_alone(pairs_file: Path, tokenize: Tokenize) -> None:
    torch.manual_seed(1)
    first = order(pairs(pairs_file, tokenize, seed=5))
    torch.manual_seed(2)
    assert order(pairs(pairs_file, tokenize, seed=5)) == first
    data = pairs(pairs_file, tokenize, seed=5)
    data.generator.manual_seed(6)  # of the same split
    assert order(data) != first


def test_every_epoch_has_another_order_and_leaves_out_other_rows(
    pairs_file: Path, tokenize: Tokenize
) -> None:
    data = pairs(pairs_file, tokenize, ["anchor"], batch_size=50)
    loader = data.train_dataloader()
    epochs = [
        [tuple(row) for batch in ids(list(loader)) for row in batch[0]]  # all of one length
        for _ in range(2)
    ]
    assert all(len(set(rows)) == 150 for rows in epochs)
    assert epochs[0] != epochs[1]
    assert set(epochs[0]) != set(epochs[1])


def test_validation_has_the_order_of_the_rows(pairs_file: Path, tokenize: Tokenize) -> None:
    data = pairs(pairs_file, tokenize)
    first = ids(list(data.val_dataloader()))
    order(data)
    assert ids(list(data.val_dataloader())) == first


def test_workers_give_the_same_batches(pairs_file: Path, tokenize: Tokenize) -> None:
    alone = pairs(pairs_file, tokenize, TRIPLE)
    helped = pairs(pairs_file, tokenize, TRIPLE, num_workers=2)
    assert order(alone) == order(helped)


def test_sources_are_joined_and_hashed(
    pairs_file: Path, numbered: Path, tokenize: Tokenize
) -> None:
    sources = {"pairs": Source(str(pairs_file), PAIR), "few": Source(str(numbered), PAIR, limit=9)}
    held = {"numbered": Source(str(numbered), PAIR)}
    config = DataConfig(train=sources, validation=held, on_bad_row="skip")
    data = PairDataModule(config, tokenize, batch_size=16)
    assert (len(data.train_rows), len(data.validation_rows), data.skipped) == (208, 100, 6)
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
    config = DataConfig(train={"pairs": Source(str(pairs_file), PAIR, limit=19)})
    with pytest.raises(InputError, match=r"data\.validation: 1 row"):
        PairDataModule(config, tokenize, batch_size=2)


def test_no_source_is_refused_with_the_keys_to_set(tokenize: Tokenize) -> None:
    with pytest.raises(InputError, match=r"data\.train: no source; set data\.train\.NAME\.path="):
        PairDataModule(DataConfig(), tokenize, batch_size=2)


def test_sources_of_different_column_counts_are_refused(
    pairs_file: Path, tokenize: Tokenize
) -> None:
    sources = {"a": Source(str(pairs_file), PAIR), "b": Source(str(pairs_file), TRIPLE)}
    with pytest.raises(InputError, match=r"data\.train: sources of \{'a': 2, 'b': 3\} columns"):
        PairDataModule(DataConfig(train=sources), tokenize, batch_size=2)


# Numbers of texts and groups, teachers, chunks


def test_equal_texts_have_equal_numbers_in_every_column_and_process(tokenize: Tokenize) -> None:
    rows = [Row(("a", "b")), Row(("b", "c")), Row(("a", "the cat"))]
    ids = Collate(tokenize)(rows).ids
    texts = [text for row in rows for text in row.texts]
    flat = ids.flatten().tolist()
    assert [[x == y for y in flat] for x in flat] == [[x == y for y in texts] for x in texts]
    digest = hashlib.blake2b(b"the cat", digest_size=8).digest()
    assert flat[-1] == int.from_bytes(digest, "little", signed=True)
    twice = Collate(tokenize)([Row(("a",)), Row(("b",))]).ids
    assert torch.equal(twice[:, 0], twice[:, 1])


def test_a_group_is_a_column_of_its_source_and_ends_there(
    tmp_path: Path, tokenize: Tokenize
) -> None:
    file = tmp_path / "grouped.jsonl"
    rows = [{"anchor": sentence(n), "positive": answer(n), "topic": n // 10} for n in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(str(file), PAIR, group="topic", limit=40)
    other = Source(str(file), PAIR, group="topic", limit=10)
    bare = Source(str(file), PAIR, limit=2)
    config = DataConfig(train={"one": source, "two": other, "three": bare})
    data = PairDataModule(config, tokenize, batch_size=4)
    batch = data.collate()(data.rows["train"])
    marks = [row.group for row in data.rows["train"]]
    assert {mark.partition(":")[0] for mark in marks if mark} == {"one", "two"}
    for i, mark in enumerate(marks):
        same = [j for j, found in enumerate(batch.groups.tolist()) if found == batch.groups[i]]
        expected = [j for j, found in enumerate(marks) if found == mark] if mark else [i]
        assert same == expected


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
            DataConfig(train={"x": Source(str(file), PAIR, group=group)}), tokenize, batch_size=2
        )


def test_a_teachers_view_of_the_texts_travels_with_them(pairs_file, tokenize: Tokenize) -> None:
    data = pairs(pairs_file, tokenize, TRIPLE)
    data.prepare = lambda texts: torch.tensor([[len(text)] for text in texts])
    batch = next(iter(data.val_dataloader()))
    rows = data.validation_rows[:16]
    assert [one.flatten().tolist() for one in batch.prepared] == [
        [len(text) for text in column] for column in zip(*rows, strict=True)
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
                found = torch.cat([getattr(part, kind)[column][name] for part in parts])
                assert torch.equal(found, value)


def test_in_a_run_every_rank_knows_the_sizes_of_all(pairs_file, tokenize: Tokenize) -> None:
    data = pairs(pairs_file, tokenize)
    assert next(iter(data.train_dataloader())).sizes is None
    data.trainer = SimpleNamespace(world_size=3)
    assert next(iter(data.train_dataloader())).sizes == [16, 16, 16]
