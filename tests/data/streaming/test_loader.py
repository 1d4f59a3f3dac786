"""What training on streams claims: batches without conflicts and without end, exact resumes."""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from forked import Forked
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from sentences import answer, sentence
from stream_ranks import SAVED, STEPS
from transformers import AutoTokenizer

from mic.config.loading import load
from mic.config.schema_data import CorpusConfig, DataConfig
from mic.data.batch import Batch, Collate, signed
from mic.data.datamodule import PairDataModule
from mic.data.sources.examples import hash_text
from mic.data.streaming.loader import Position, Streams, open_streams
from mic.data.streaming.windows import FIRST
from mic.encoder.tokenizer import Tokenize
from mic.errors import InputError
from mic.train.module import MICModule
from mic.train.run import train

PAIR = ["anchor", "positive"]
VALIDATION_ROWS = 20


def row(n: int, prefix: str = "") -> dict[str, Any]:
    return {"anchor": prefix + sentence(n), "positive": prefix + answer(n), "topic": n % 40}


def write(folder: Path, rows: Sequence[Mapping[str, Any]], files: int = 1) -> Path:
    """Rows as a folder of files of about as many."""
    folder.mkdir(exist_ok=True)
    for file in range(files):
        part = rows[len(rows) * file // files : len(rows) * (file + 1) // files]
        text = "".join(json.dumps(values) + "\n" for values in part)
        (folder / f"{file}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module")
def tokenize(model_folder: Path) -> Tokenize:
    return Tokenize(AutoTokenizer.from_pretrained(model_folder), max_length=16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    """300 pairs in three files."""
    rows = [row(n) for n in range(300)]
    folder = write(tmp_path_factory.mktemp("pairs") / "files", rows, files=3)
    return CorpusConfig(str(folder), PAIR, streaming=True)


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CorpusConfig]:
    rows = [row(n) for n in range(900, 900 + VALIDATION_ROWS)]
    return {"held": CorpusConfig(str(write(tmp_path_factory.mktemp("held"), rows)), PAIR)}


@pytest.fixture
def streams(validation: dict[str, CorpusConfig]) -> Any:
    """Streams of corpora by name, and settings of data."""

    def open_them(batch_size: int = 16, seed: int = 0, **settings: Any) -> Streams:
        config = DataConfig(validation=validation, **settings)
        opened = open_streams(config, batch_size, None, seed)
        assert opened is not None
        return opened

    return open_them


def batches(
    streams: Streams,
    tokenize: Tokenize,
    count: int,
    *,
    rank: int = 0,
    ranks: int = 1,
    position: Position | None = None,
) -> list[Batch]:
    collate = Collate(tokenize, None, any(stream.source.group for stream in streams.streams))
    position = position or Position([None] * streams.workers)
    return list(islice(streams.loader(collate, rank, ranks, position), count))


def numbers(batches_seen: Sequence[Batch]) -> list[list[list[int]]]:
    """The hashes of the texts of batches."""
    return [batch.ids.tolist() for batch in batches_seen]


def queries(batches_seen: Sequence[Batch]) -> list[int]:
    """The hashes of all queries."""
    return [ids[0] for batch in batches_seen for ids in batch.ids.tolist()]


def of_text(text: str) -> int:
    return signed(hash_text(text))


# Batches


def test_the_batches_of_a_pass_hold_every_row_once_but_for_those_that_wait(
    streams, source, tokenize
) -> None:
    loaded = batches(streams(train={"pairs": source}), tokenize, 4 * 19)
    expected = {of_text(sentence(n)) for n in range(300)}
    # a window ends with a pass, and what fills no batch waits: 12 rows after 18 batches of 16
    for done in (18, 37, 56, 75):
        counts = Counter(queries(loaded[:done]))
        assert counts.keys() <= expected
        assert max(counts.values()) == -(-done // 19)
    assert counts.keys() == expected
    assert min(counts.values()) >= 3


def test_no_text_and_no_group_is_twice_in_a_batch(tmp_path: Path, streams, tokenize) -> None:
    shuffled = random.Random(0).sample(range(1000), 1000)
    rows = [{**row(n), "positive": answer(n % 150), "topic": n % 31} for n in shuffled]
    folder = write(tmp_path / "rows", rows)
    corpus = CorpusConfig(str(folder), PAIR, group="topic", streaming=True)
    corpora = {"one": corpus, "two": replace(corpus, group=None, limit=300)}
    loaded = batches(streams(train=corpora), tokenize, 120)
    for batch in loaded:
        texts = batch.ids.flatten().tolist()
        assert len(set(texts)) == len(texts) == 32
        assert len(set(batch.groups.tolist())) == 16
    # as without: some do
    loose = batches(streams(train=corpora, keep_apart=False), tokenize, 20)
    assert any(len(set(batch.groups.tolist())) < 16 for batch in loose)


def test_a_group_of_one_corpus_is_none_of_another(tmp_path: Path, streams, tokenize) -> None:
    folder = write(tmp_path / "rows", [{**row(n), "topic": n % 8} for n in range(160)])
    corpus = CorpusConfig(str(folder), PAIR, group="topic", streaming=True)
    loaded = batches(streams(train={"one": corpus, "two": corpus}), tokenize, 1)
    assert len(set(loaded[0].groups.tolist())) == 16  # 8 of each
    message = (
        r"^data\.train: 500 rows of the stream have no batch of 16 that share neither text nor"
    )
    with pytest.raises(InputError, match=message):
        streams(train={"one": corpus}, window=500)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_on_the_way_is_told_without_a_workers_traceback(
    tmp_path: Path, streams, tokenize, workers: int
) -> None:
    rows = [row(n) for n in range(900)]
    rows[700]["anchor"] = ""
    folder = write(tmp_path / "rows", rows)
    train = {"x": CorpusConfig(str(folder), PAIR, streaming=True)}
    opened = streams(batch_size=4, train=train, num_workers=workers)
    loader = iter(opened.loader(Collate(tokenize), 0, 1, Position([None])))
    assert len(list(islice(loader, 40))) == 40
    message = r"0\.jsonl: row 701: column 'anchor' is empty; mend the row or set data\.on_bad_row=s"
    with pytest.raises(InputError, match=message + r"kip$"):
        list(islice(loader, 200))


def test_rows_of_one_group_side_by_side_wait_for_others(tmp_path: Path, streams, tokenize) -> None:
    rows = [{**row(n), "topic": 0 if n < 600 else n} for n in range(1000)]
    folder = write(tmp_path / "rows", rows)
    corpus = CorpusConfig(str(folder), PAIR, group="topic", streaming=True)
    # its first window of 8 batches is all one group, and so is twice of it
    for batch in batches(streams(batch_size=4, train={"one": corpus}), tokenize, 300):
        assert len(set(batch.groups.tolist())) == 4


def test_ranks_have_parts_of_the_batch_and_know_the_sizes_of_all(streams, source, tokenize) -> None:
    ranks = [
        batches(streams(train={"pairs": source}), tokenize, 6, rank=rank, ranks=3)
        for rank in range(3)
    ]
    for parts in zip(*ranks, strict=True):
        assert [part.size for part in parts] == [6, 5, 5] == parts[0].sizes == parts[2].sizes
    # a rank's file is its own; the first pass of each has 100 rows, 16 or 20 batches
    seen = Counter(row for rank in ranks for row in queries(rank))
    assert max(seen.values()) == 1


@pytest.mark.parametrize("weights", [(None, None), (3.0, 1.0), (1.0, 7.0)])
def test_corpora_are_mixed_by_their_weights(tmp_path: Path, streams, tokenize, weights) -> None:
    corpora = {}
    for name, weight in zip("ab", weights, strict=True):
        rows = [row(n, name) for n in range(1000)]
        folder = write(tmp_path / name, rows)
        corpora[name] = CorpusConfig(str(folder), PAIR, weight=weight, streaming=True)
    share = 0.5 if weights[0] is None else weights[0] / sum(weights)
    loaded = batches(streams(train=corpora), tokenize, FIRST)
    first = {of_text("a" + sentence(n)) for n in range(1000)}
    assert sum(query in first for query in queries(loaded)) == share * FIRST * 16


def test_single_batches_are_of_one_corpus_which_is_the_same_on_all_ranks(
    tmp_path: Path, streams, tokenize
) -> None:
    rows = [{**row(n), "negative": sentence(n + 500)} for n in range(400)]
    three = [*PAIR, "negative"]
    triples = CorpusConfig(
        str(write(tmp_path / "triples", rows, files=4)), three, weight=3, streaming=True
    )
    singles = replace(triples, columns=["anchor"], weight=1, min_characters=15)
    train = {"triples": triples, "singles": singles}
    with pytest.raises(InputError, match=r"data\.train: corpora of \{'triples': 3, 'singles': 2\}"):
        streams(train=train)
    ranks = [
        batches(streams(train=train, batches="single"), tokenize, 80, rank=rank, ranks=2)
        for rank in range(2)
    ]
    columns = [[len(batch.columns) for batch in rank] for rank in ranks]
    assert columns[0] == columns[1]
    assert Counter(columns[0]) == {3: 60, 2: 20}


def test_single_texts_stand_twice_beside_pairs(source, streams, tokenize) -> None:
    train = {"pairs": source, "texts": replace(source, columns=["positive"])}
    loaded = batches(streams(train=train), tokenize, 37)  # a pass of both
    doubled = [ids[0] == ids[1] for batch in numbers(loaded) for ids in batch]
    assert 592 - 300 <= sum(doubled) <= 300


def test_batches_are_of_like_length_but_in_no_order(tmp_path: Path, streams, tokenize) -> None:
    random.seed(0)
    rows = [
        {**row(n), "anchor": "the " * random.randint(1, 30) + sentence(n % 1000)}
        for n in range(3000)
    ]
    folder = write(tmp_path / "rows", rows)
    train = {"x": CorpusConfig(str(folder), ["anchor"], streaming=True)}
    wide = replace(tokenize, max_length=64)

    def lengths(window: int) -> np.ndarray:
        loaded = batches(streams(train=train, window=window), wide, 40)
        return np.array([batch.columns[0]["attention_mask"].sum(1).tolist() for batch in loaded])

    alike, mixed = lengths(2**16), lengths(0)
    assert np.ptp(alike, axis=1).mean() < np.ptp(mixed, axis=1).mean() / 8
    means = alike.mean(1)
    rising = np.mean([a < b for a, b in pairwise(means)])
    assert 0.3 < rising < 0.7
    for size in (1, 5):  # a window is never less than a batch
        assert batches(streams(train=train, window=size), wide, 1)[0].size == 16


def test_the_first_batch_waits_for_few_rows_and_windows_grow(tmp_path, streams, tokenize) -> None:
    rows = [{"anchor": f"the cat {n}"} for n in range(6000)]
    folder = write(tmp_path / "rows", rows)
    train = {"x": CorpusConfig(str(folder), ["anchor"], streaming=True)}
    opened = streams(batch_size=4, train=train, window=1024)
    loaded = batches(opened, tokenize, 1100)
    read = []
    for batch in loaded:
        (section,) = json.loads(batch.state)["sections"]
        read.append((section["start"]["number"], section["start"]["rows"]["position"]))
    begun = dict(read)
    assert list(begun.items())[:6] == [(0, 0), (1, 256), (2, 768), (3, 1792), (4, 2816), (5, 3840)]
    for done in (63, 64, 65, 300, 1000):  # also from windows that the next ones outgrow
        position = Position([None]).after(loaded[done - 1].state)
        again = batches(opened, tokenize, 70, position=position)
        assert numbers(again) == numbers(loaded[done : done + 70])


def test_the_state_is_small(streams, source, tokenize) -> None:
    loaded = batches(streams(train={"pairs": source}), tokenize, 100)
    assert max(len(batch.state) for batch in loaded) < 4000


# Resuming


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_stream_goes_on_after_any_batch(
    tmp_path: Path, streams, source, tokenize, rank: int, single: bool
) -> None:
    small = write(tmp_path / "small", [row(n, "small ") for n in range(80)])
    train = {"a": source, "b": CorpusConfig(str(small), PAIR, streaming=True, weight=None)}
    opened = streams(train=train, batches="single" if single else "mixed")
    whole = batches(opened, tokenize, 45, rank=rank, ranks=2)
    position = Position([None])
    for count, batch in enumerate(whole[:40], 1):
        position = position.after(batch.state)
        again = batches(opened, tokenize, 5, rank=rank, ranks=2, position=position)
        assert numbers(again) == numbers(whole[count : count + 5])
        assert [batch.state for batch in again] == [
            batch.state for batch in whole[count : count + 5]
        ]


def test_workers_take_turns_and_go_on_where_each_was(streams, source, tokenize) -> None:
    whole = batches(streams(train={"pairs": source}, num_workers=2), tokenize, 24)
    assert [json.loads(batch.state)["worker"] for batch in whole] == [0, 1] * 12
    first = queries(whole[:18])  # 9 batches of each worker's 150 rows
    assert len(set(first)) == len(first)
    position = Position([None, None])
    for batch in whole[:13]:  # the next one is worker 1's
        position = position.after(batch.state)
    again = batches(streams(train={"pairs": source}, num_workers=2), tokenize, 8, position=position)
    assert numbers(again) == numbers(whole[13:21])


@pytest.fixture
def streaming_config(
    tiny_config: Path, source: CorpusConfig, validation: dict[str, CorpusConfig]
) -> Path:
    """The tiny run, on streams."""
    file = tiny_config.with_name("streaming.yaml")
    file.write_text(
        f"""
base: {tiny_config}
data:
  train: {{pairs: {{path: {source.path}, streaming: true}}}}
  validation: {{held: {{path: {validation["held"].path}, columns: [anchor, positive]}}}}
"""
    )
    return file


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumes_after_the_last_batch_trained_on(
    streaming_config: Path, tmp_path: Path, workers: int
) -> None:
    """Through Lightning, its prefetching and its checkpoints."""
    file = tmp_path / "checkpoints" / "middle.ckpt"
    saving = ModelCheckpoint(file.parent, "middle", every_n_train_steps=23, save_top_k=1)
    whole, _ = trained(streaming_config, workers, [saving])
    assert len({str(batch) for batch in whole}) == 40
    stored = torch.load(file, weights_only=True)["PairDataModule"]
    assert len(json.dumps(stored)) < 10_000
    again, data = trained(streaming_config, workers, resume=file)
    assert again == whole[23:]
    if workers:
        return
    with pytest.raises(InputError, match=r"data\.num_workers: 3, but the checkpoint's streams sta"):
        trained(streaming_config, 3, resume=file)
    checkpoint = torch.load(file, weights_only=True)
    del checkpoint["PairDataModule"]
    torch.save(checkpoint, file)
    with pytest.raises(InputError, match=r"data\.train: the checkpoint is not one of streams; s"):
        trained(streaming_config, 0, resume=file)
    data.trainer = SimpleNamespace(world_size=2, global_rank=1)
    with pytest.raises(InputError, match="ranks: 2, but the checkpoint's streams stand where 1 le"):
        data.load_state_dict(stored)


def trained(
    config: Path,
    workers: int,
    callbacks: Sequence[Callback] = (),
    resume: Path | None = None,
    steps: int = 40,
) -> tuple[list[list[list[int]]], PairDataModule]:
    """The numbers of the texts of every batch that a run trains on, and its data."""
    module = MICModule(load(config, "trainer.max_steps=40", f"data.num_workers={workers}"))
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
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=15,
        check_val_every_n_epoch=None,
        limit_val_batches=0 if workers else None,  # more processes would only cost time
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    return seen, data


def test_two_ranks_read_different_rows_and_each_goes_on_where_it_was(
    fork: Forked, streaming_config: Path, tmp_path: Path
) -> None:
    codes, output = fork(str(streaming_config), str(tmp_path), ranks=2, module="stream_ranks")
    assert codes == [0, 0], output

    def seen(run: str) -> list[list[tuple[list[list[int]], list[int]]]]:
        return [json.loads((tmp_path / f"{run}-{rank}.json").read_text()) for rank in range(2)]

    whole, resumed = seen("whole"), seen("resumed")
    assert [len(rank) for rank in whole] == [STEPS, STEPS]
    assert resumed == [rank[SAVED:] for rank in whole]
    for rank, size in zip(whole, (8, 7), strict=True):
        assert all(len(ids) == size and sizes == [8, 7] for ids, sizes in rank)
    rows = Counter(query for rank in whole for ids, _ in rank for query, _ in ids)
    assert len(rows) == 15 * STEPS  # of 300, each at most once


class StopError(RuntimeError):
    pass


def test_a_batch_that_failed_is_not_one_trained_on(streaming_config: Path, tmp_path: Path) -> None:
    """A checkpoint written where a step broke off begins with that step's batch."""
    file = tmp_path / "broken.ckpt"
    broken: list[list[list[int]]] = []

    class Break(Callback):
        def on_before_backward(self, trainer, pl_module, loss) -> None:
            if trainer.global_step == 7:
                raise StopError

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            broken.append(batch.ids.tolist())

        def on_exception(self, trainer, pl_module, exception) -> None:
            trainer.save_checkpoint(file)

    with pytest.raises(StopError):
        trained(streaming_config, 0, [Break()])
    again, _ = trained(streaming_config, 0, resume=file, steps=9)
    assert again[0] == broken[-1]
    assert len(broken) == 8


# A whole run


def test_a_run_over_streams_says_what_it_does_not_know(streaming_config: Path) -> None:
    config = load(streaming_config)
    meta = train(config)["meta"]
    assert meta["rows"] == {"train": None, "validation": VALIDATION_ROWS}
    assert meta["skipped_rows"] is None
    assert meta["texts_trained_on"] == {"sts": None, "found": None}
    size = sum(file.stat().st_size for file in Path(config.data.train["pairs"].path).iterdir())
    assert meta["data"]["train/pairs"] == f"streamed: 3 files of {size} bytes"
    lines = (Path(config.runs) / config.name / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    assert [line["step"] for line in logged if "train/loss" in line] == [1, 2, 3, 4]
    assert any("val/loss" in line for line in logged)


def test_a_sample_is_the_first_rows_mixed(streams, source, tmp_path: Path) -> None:
    few = write(tmp_path / "few", [row(n, "few ") for n in range(10)])
    train = {"a": source, "b": CorpusConfig(str(few), PAIR, streaming=True)}
    sample = streams(train=train).sample(12)
    assert sorted(sample) == sorted(
        (prefix + sentence(n), prefix + answer(n)) for n in range(6) for prefix in ("", "few ")
    )
    assert len(streams(train=train).sample(1000)) == 310


def test_what_needs_an_index_is_refused(source, validation, tokenize) -> None:
    data = PairDataModule(
        DataConfig(train={"pairs": source}, validation=validation), tokenize, batch_size=16
    )
    for asked in (lambda: next(data.texts()), lambda: data.order, lambda: data.train):
        with pytest.raises(InputError, match=r"no index, which a cached teacher and `mic data` ne"):
            asked()


def test_a_teachers_view_of_the_texts_travels_with_them(source, validation, tokenize) -> None:
    config = DataConfig(train={"pairs": source}, validation=validation)
    data = PairDataModule(config, tokenize, batch_size=16)
    data.prepare = lambda texts: torch.tensor([[len(text)] for text in texts])
    batch = next(iter(data.train_dataloader()))
    assert [column.shape for column in batch.prepared] == [(16, 1)] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": {}}, r"\.pairs\.streaming=true: no rows can be held out of a stream; set "),
        ({"temperature": 2.0}, r"data\.temperature=2\.0 needs the corpora's rows to be counted; s"),
        ({"more": {"streaming": False}}, r"data\.train\.more\.streaming=false: all training corp"),
        ({"more": {"weight": 1.0}}, r"data\.train\.pairs\.weight: not set, while other corpora "),
        (
            {"more": {"weight": 1e-9}, "one": 1.0},
            r"data\.train\.more\.weight: its share is no row; ",
        ),
        ({"more": {"deduplicate": True}}, r"data\.train\.more\.deduplicate=true: needs all rows"),
        ({"more": {"label": "topic"}}, r"data\.train\.more\.label=topic: needs all rows at hand"),
        ({"more": {"where": {"x": "1"}}}, r"data\.train\.more\.where: a stream has every row of i"),
        ({"more": {"columns": ["x"]}}, r"0\.jsonl: no column 'x'; it has \['anchor', 'positive'"),
        ({"more": {"path": "nothing.csv"}}, r"nothing\.csv: no such file"),
        ({"more": {"path": "nobody/nothing"}}, r"nobody/nothing .*: neither a file nor a reachab"),
    ],
)
def test_settings_that_streams_cannot_serve_are_refused_with_a_cure(
    source, streams, validation, settings: dict[str, Any], message: str
) -> None:
    more, weight = settings.get("more"), settings.get("one")
    train = {"pairs": replace(source, weight=weight)}
    if more is not None:
        train["more"] = replace(source, **more)
        settings = {}
    config = DataConfig(**{"train": train, "validation": validation, **settings})
    with pytest.raises(InputError, match=message):
        open_streams(config, 16, None, 0)


def test_a_budget_of_tokens_and_validation_streams_are_refused(source, validation) -> None:
    config = DataConfig(train={"pairs": source}, validation=validation)
    with pytest.raises(InputError, match=r"streaming=true: trainer\.batch_tokens=512 needs the l"):
        open_streams(config, 16, 512, 0)
    config = DataConfig(train={"pairs": source}, validation={"held": source})
    with pytest.raises(InputError, match=r"data\.validation\.held\.streaming=true: the validat"):
        open_streams(config, 16, None, 0)


def test_a_batch_of_fewer_rows_than_ranks_is_refused(source, streams, tokenize) -> None:
    with pytest.raises(InputError, match=r"trainer\.batch_size=2: a row for each of 3 ranks"):
        batches(streams(batch_size=2, train={"pairs": source}), tokenize, 1, ranks=3)
