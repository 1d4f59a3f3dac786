"""What streams claim: each row once a pass over all ranks and workers, and the same rows after a
resume at any of them."""

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from datasets import load_dataset
from sentences import answer, sentence
from torch.utils.data._utils import worker as torch_worker

from mic.config.schema_data import CorpusConfig
from mic.data.sources.examples import hash_text, read_examples
from mic.data.streaming.reader import Reader, Stream, WorkerShare, cut_shards, open_stream
from mic.errors import InputError, RunError

PAIR = ["anchor", "positive"]
LENGTHS = (7, 13, 10, 16, 19)  # rows of the files
ROWS = [{"anchor": sentence(n), "positive": answer(n), "number": n} for n in range(sum(LENGTHS))]


def write_jsonl(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def parts() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The rows of each file, and its number."""
    start = 0
    for part, length in enumerate(LENGTHS):
        yield part, ROWS[start : start + length]
        start += length


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five files."""
    folder = tmp_path_factory.mktemp("files")
    for part, rows in parts():
        write_jsonl(folder / f"{part}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The same rows as five files of several row groups each."""
    folder = tmp_path_factory.mktemp("parquet")
    for part, rows in parts():
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, folder / f"{part}.parquet", row_group_size=4)
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(params=["files", "one file", "hub json", "hub parquet"])
def stream(request: pytest.FixtureRequest, files: Path, parquet: list[str]) -> Stream:
    """The rows as local files, as one, and as `datasets` reads those of the Hub."""
    if request.param == "files":
        return open_stream("pairs", CorpusConfig(str(files), PAIR))
    if request.param == "one file":
        file = write_jsonl(files.parent / "one.jsonl", ROWS)
        return open_stream("pairs", CorpusConfig(str(file), PAIR))
    kind = request.param.removeprefix("hub ")
    read = parquet if kind == "parquet" else sorted(map(str, files.iterdir()))
    return hub(load_dataset(kind, data_files=read, split="train", streaming=True))


def hub(dataset: Any, **settings: Any) -> Stream:
    """A stream of a data set as `mic.data.sources.files.load_hub` gives it."""
    return Stream("pairs", CorpusConfig("some/pairs", PAIR, **settings), None, dataset)


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Reader]:
    """Readers in this process, which for `datasets` is the worker that the share says."""

    def reader(
        stream: Stream, share: WorkerShare | None = None, state: Any = None, seed: int = 0
    ) -> Reader:
        share = share or WorkerShare()
        # what a worker of a DataLoader sets when it starts
        info = SimpleNamespace(id=share.worker, num_workers=share.workers)
        monkeypatch.setattr(torch_worker, "_worker_info", info if share.workers > 1 else None)
        return Reader(stream, share, seed, "raise", state)

    return reader


def a_pass(reader: Reader) -> list[tuple[str, ...]]:
    """The texts of the rest of a pass; the reader has begun the next one after it."""
    examples, passes = [], reader.passes
    while True:
        texts = reader.take().texts
        if reader.passes > passes:
            return examples
        examples.append(texts)


def shares(ranks: int, workers: int) -> list[WorkerShare]:
    return [
        WorkerShare(rank, ranks, worker, workers)
        for rank in range(ranks)
        for worker in range(workers)
    ]


# Sharing out


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_and_workers_read_every_row_once(stream, begin, ranks: int, workers: int) -> None:
    if stream.files is None and len(LENGTHS) // (ranks if ranks == 5 else 1) < workers:
        with pytest.raises(InputError, match=r"data\.num_workers=\d: data\.train\.pairs has 1 f"):
            begin(stream, WorkerShare(0, ranks, 0, workers))
        return
    passes_read = [a_pass(begin(stream, share)) for share in shares(ranks, workers)]
    assert all(passes_read)
    expected = Counter(tuple(row[column] for column in PAIR) for row in ROWS)
    assert Counter(row for rows in passes_read for row in rows) == expected


@pytest.mark.parametrize("readers", range(1, 13))
@pytest.mark.parametrize("count", range(1, 13))
def test_every_reader_has_as_many_shards_and_few_files_are_cut(count: int, readers: int) -> None:
    files = [str(file) for file in range(count)]
    shards = cut_shards(files, readers)
    assert len(shards) % readers == 0
    assert sum(shard.step == 1 for shard in shards) >= count // readers * readers
    for file in files:  # the shards of a file hold each of its rows once
        rows = [n for s in shards if s.files == (file,) for n in range(s.offset, 60, s.step)]
        assert sorted(rows) == list(range(60))


@pytest.mark.parametrize("limit", [11, 30])
def test_a_limit_keeps_the_top_rows_of_the_files(files: Path, begin, limit: int) -> None:
    stream = open_stream("pairs", CorpusConfig(str(files), PAIR, limit=limit))
    top = Counter(tuple(row[column] for column in PAIR) for row in ROWS[:limit])
    for ranks, workers in ((1, 1), (2, 1), (3, 2)):
        passes_read = [a_pass(begin(stream, share)) for share in shares(ranks, workers)]
        assert Counter(row for rows in passes_read for row in rows) == top


def test_a_limit_on_a_hub_data_set_is_shared_by_the_workers(parquet, begin) -> None:
    dataset = load_dataset("parquet", data_files=parquet, split="train", streaming=True)
    stream = hub(dataset, limit=20)
    for ranks, workers in ((1, 1), (2, 1), (1, 3), (2, 2)):
        passes_read = [a_pass(begin(stream, share)) for share in shares(ranks, workers)]
        rows = [row for rows in passes_read for row in rows]
        assert len(rows) == len(set(rows)) == 20


# Passes and resuming


def test_the_first_pass_is_in_the_order_of_the_files_the_next_ones_are_not(files, begin) -> None:
    stream = open_stream("pairs", CorpusConfig(str(files), PAIR))
    in_order = [tuple(row[column] for column in PAIR) for row in ROWS]
    passes = {}
    for seed in (0, 1):
        reader = begin(stream, seed=seed)
        passes[seed] = [a_pass(reader)]
        for _ in range(2):  # their first rows have been taken
            passes[seed].append([*a_pass(reader)])
    assert passes[0][0] == passes[1][0] == in_order
    later = [tuple(passes[seed][number]) for seed in (0, 1) for number in (1, 2)]
    assert len({*later, tuple(in_order[1:])}) == 5
    assert all(len(set(rows)) == len(ROWS) - 1 for rows in later)


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)])
def test_a_reader_goes_on_at_any_row_of_any_pass(stream, begin, ranks: int, workers: int) -> None:
    share = WorkerShare(ranks - 1, ranks, workers - 1, workers)
    reader = begin(stream, share)
    states, rows = [reader.state()], []
    for _ in range(90):
        rows.append(reader.take())
        states.append(json.loads(json.dumps(reader.state())))
    for count in range(70):
        again = begin(stream, share, states[count])
        assert again.state() == states[count]  # also before it has read anything
        assert [again.take() for _ in range(20)] == rows[count : count + 20]


def test_a_reader_with_a_limit_goes_on_as_well(files: Path, parquet, begin) -> None:
    dataset = load_dataset("parquet", data_files=parquet, split="train", streaming=True)
    local = open_stream("pairs", CorpusConfig(str(files), PAIR, limit=17))
    for stream in (local, hub(dataset, limit=17)):
        share = WorkerShare(1, 2, 0, 2)
        reader = begin(stream, share)
        states, rows = [], []
        for _ in range(20):
            states.append(reader.state())
            rows.append(reader.take())
        for count in range(15):
            again = begin(stream, share, states[count])
            assert [again.take() for _ in range(5)] == rows[count : count + 5]


# What rows become


def test_every_format_gives_the_examples_that_an_index_would_hold(tmp_path: Path, begin) -> None:
    rows = [{**row, "topic": f"t{row['number'] % 4}", "score": row["number"] / 10} for row in ROWS]
    plain = write_jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    for suffix, delimiter in (("csv", ","), ("tsv", "\t")):
        with (tmp_path / f"rows.{suffix}").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    for file in files:
        source = CorpusConfig(
            str(file), PAIR, group="topic", score="score", min_score=1.5, min_characters=21
        )
        indexed = list(read_examples(source, "raise", Counter()))
        assert 10 < len(indexed) < 50
        reader = begin(open_stream("one", source))
        streamed = [reader.take() for _ in indexed]
        assert [example.texts for example in streamed] == [example.texts for example in indexed]
        # a corpus numbers its groups for itself
        groups = [example.group ^ hash_text("one") for example in streamed]
        assert groups == [example.group for example in indexed]
        assert reader.counts["kept"] == len(indexed)


def test_a_bad_row_is_named_or_skipped(tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS[:9]]
    rows[6]["positive"] = None
    file = write_jsonl(tmp_path / "holed.jsonl", rows)
    stream = open_stream("pairs", CorpusConfig(str(file), PAIR))
    message = r"holed\.jsonl: row 7: column 'positive' is empty; mend the row or set data\.on_bad"
    with pytest.raises(InputError, match=message):
        a_pass(Reader(stream, WorkerShare(), 0, "raise"))
    skipping = Reader(stream, WorkerShare(), 0, "skip")
    assert len(a_pass(skipping)) == 8

    dataset = load_dataset("json", data_files=str(file), split="train", streaming=True)
    message = r"some/pairs: row 7: column 'positive' is empty; .*; it is \{'anchor': 'the cat "
    with pytest.raises(InputError, match=message):
        a_pass(Reader(hub(dataset), WorkerShare(), 0, "raise"))
    message = r"some/pairs: row 4 of rank 0: column 'positive' is empty"
    with pytest.raises(InputError, match=message):
        a_pass(Reader(hub(dataset), WorkerShare(0, 2), 0, "raise"))


def test_a_pass_without_a_row_to_train_on_is_refused(files: Path, begin) -> None:
    source = CorpusConfig(str(files), PAIR, min_characters=500)
    message = r"data\.train\.pairs: .*: a whole pass of worker 1 has no row to train on "
    # its two files of 13 and 16 rows, and half of the 19 of the last one
    with pytest.raises(InputError, match=message + r"\(38 read, 38 too short\); give more rows"):
        begin(open_stream("pairs", source), WorkerShare(0, 1, 1, 2)).take()
    few = open_stream("pairs", replace(source, min_characters=1, limit=3))
    with pytest.raises(InputError, match=r"of rank 3 has no row to train on \(0 read\)"):
        begin(few, WorkerShare(3, 4)).take()


def test_a_source_that_breaks_is_named(tmp_path: Path, parquet: list[str]) -> None:
    files = [Path(file).read_bytes() for file in parquet[:2]]
    for number, content in enumerate(files):
        (tmp_path / f"{number}.parquet").write_bytes(content)
    paths = sorted(map(str, tmp_path.iterdir()))
    stream = hub(load_dataset("parquet", data_files=paths, split="train", streaming=True))
    Path(paths[1]).write_bytes(files[1][:100])
    reader = Reader(stream, WorkerShare(), 0, "raise")
    message = r"some/pairs: not readable after row 7 of pass 1: ArrowInvalid: Could not open Parq"
    with pytest.raises(RunError, match=message):
        a_pass(reader)
    Path(paths[0]).unlink()
    message = "some/pairs: not readable after row 0 of pass 1: FileNotFoundError"
    with pytest.raises(InputError, match=message):
        Reader(stream, WorkerShare(), 0, "raise").take()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deduplicate": True}, r"data\.train\.x\.deduplicate=true: needs all rows at hand; drop"),
        ({"label": "number", "columns": ["anchor"]}, r"data\.train\.x\.label=number: needs all r"),
        ({"columns": []}, r"no columns; set `columns`"),
        ({"path": "nothing.jsonl"}, r"nothing\.jsonl: no such file"),
        ({"path": "nobody/nothing"}, r"nobody/nothing \(split train\): neither a file nor a reac"),
    ],
)
def test_what_cannot_stream_is_refused(files: Path, settings: dict[str, Any], message: str) -> None:
    source = replace(CorpusConfig(str(files), PAIR), **settings)
    with pytest.raises(InputError, match=message):
        open_stream("x", source)


def test_a_missing_column_is_named(files: Path) -> None:
    stream = open_stream("x", CorpusConfig(str(files), [*PAIR, "negative"]))
    with pytest.raises(InputError, match=r"0\.jsonl: no column 'negative'; it has \['anchor', "):
        Reader(stream, WorkerShare(), 0, "raise").take()
