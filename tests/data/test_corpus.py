"""Corpora on disk: what a row becomes, what is left out and why, read once and never half."""

import json
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from corpora import open_together

from mic.config.schema_data import CorpusConfig
from mic.data import corpus as corpus_module
from mic.data.corpus import Corpus, open_corpus
from mic.data.sources.examples import Kind, kind_of
from mic.errors import InputError, RunError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "corpora"


def write(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "rows.jsonl") -> str:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def texts(corpus: Corpus) -> list[tuple[str, ...]]:
    return list(corpus.all_texts())


def test_rows_come_in_order_and_by_number(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(corpus_module, "BLOCK", 7)  # written and read in several blocks
    rows = [{"a": f"a {n}", "b": f"b {n} é 🐄"} for n in range(40)]
    corpus = open_corpus("x", CorpusConfig(write(tmp_path, rows), ["b", "a"]))
    expected = [(row["b"], row["a"]) for row in rows]
    assert texts(corpus) == expected
    assert corpus.texts([30, 2, 2, 39]) == [expected[n] for n in (30, 2, 2, 39)]
    assert corpus.lengths.tolist() == [[len(text) for text in row] for row in expected]
    numbers = [[xxhash.xxh3_64_intdigest(text.encode()) for text in row] for row in expected]
    assert corpus.keys.tolist() == numbers
    assert (len(corpus), corpus.meta.read, corpus.meta.dropped) == (40, 40, {})


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"columns": ["a"]}, "single"),
        ({"columns": ["a", "b"]}, "pair"),
        ({"columns": ["a", "b", "c"]}, "triplet"),
        ({"columns": ["a", "b", "c", "d"]}, "triplet"),
        ({"columns": ["a", "b"], "score": "s"}, "scored"),
        ({"columns": ["a"], "label": "l"}, "labelled"),
    ],
)
def test_the_columns_say_what_kind_a_corpus_is(settings: dict[str, Any], kind: Kind) -> None:
    assert kind_of(CorpusConfig("x", **settings)) == kind


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": []}, "no columns; set `columns`, for example"),
        ({"columns": ["a"], "score": "s"}, "score='s' with columns ['a']; a scored pair has two"),
        ({"columns": ["a", "b"], "label": "l"}, "label='l' with columns ['a', 'b']; a labelled"),
        ({"columns": ["a"], "label": "l", "group": "g"}, "and its label is its group"),
    ],
)
def test_columns_of_no_kind_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        kind_of(CorpusConfig("x.csv", **settings))
    assert message in str(caught.value)


def test_rows_are_left_out_by_score_length_and_repetition_and_counted(tmp_path: Path) -> None:
    rows = [
        {"a": "good one", "b": "and its pair", "s": 4.5},
        {"a": "low", "b": "is left out", "s": 3.9},
        {"a": "at the bound", "b": "is kept", "s": "4"},
        {"a": "x", "b": "is too short", "s": 5},
        {"a": "too long", "b": "b" * 31, "s": 5},
        {"a": "good one", "b": "and its pair", "s": 4.5},
        {"a": "good one", "b": "and another", "s": 4.5},
        {"a": "x", "b": "is too short", "s": 5},
        {"a": None, "b": "nothing", "s": 5},
        {"a": "no score", "b": "at all", "s": None},
    ]
    source = CorpusConfig(
        write(tmp_path, rows),
        ["a", "b"],
        score="s",
        min_score=4,
        min_characters=2,
        max_characters=30,
        deduplicate=True,
    )
    corpus = open_corpus("x", source, "skip")
    assert texts(corpus) == [(rows[n]["a"], rows[n]["b"]) for n in (0, 2, 6)]
    assert corpus.meta.read == 10
    assert corpus.meta.dropped == {
        "score too low": 1,
        "too short": 2,
        "too long": 1,
        "repeated": 1,
        "unusable": 2,
    }


@pytest.mark.parametrize("value", ["NaN", "null", '"high"', "[1]"])
def test_a_score_that_is_no_number_is_refused_by_its_row(tmp_path: Path, value: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": "x", "b": "y", "s": 5}\n' + f'{{"a": "x", "b": "y", "s": {value}}}\n')
    with pytest.raises(InputError, match=r"x\.jsonl: row 2: column 's' is .*, not a number"):
        open_corpus("x", CorpusConfig(str(file), ["a", "b"], score="s"))


def test_a_column_of_numbers_is_refused_by_its_row(tmp_path: Path) -> None:
    file = write(tmp_path, [{"a": 3, "b": "y"}])
    with pytest.raises(InputError, match=r"row 1: column 'a' is 3, not text; mend the row"):
        open_corpus("x", CorpusConfig(file, ["a", "b"]))


def test_groups_and_labels_are_numbered_alike_by_value(tmp_path: Path) -> None:
    rows = [{"a": f"text {n}", "g": n % 3, "h": str(n % 3)} for n in range(9)]
    file = write(tmp_path, rows)
    groups = open_corpus("x", CorpusConfig(file, ["a"], group="g")).keys[:, 1]
    labels = open_corpus("x", CorpusConfig(file, ["a"], label="h")).keys[:, 1]
    assert groups.tolist() == labels.tolist() == groups[:3].tolist() * 3
    assert len(np.unique(groups)) == 3


def test_no_row_left_is_refused_saying_why(tmp_path: Path, cache: Path) -> None:
    file = write(tmp_path, [{"a": "x", "b": ""}, {"a": "xx", "b": "yy"}])
    source = CorpusConfig(file, ["a", "b"], min_characters=3)
    with pytest.raises(InputError) as caught:
        open_corpus("x", source, "skip")
    message = "no row is left to train on (2 read, 1 unusable, 1 too short)"
    assert str(caught.value) == f"{file}: {message}"
    assert not [entry for entry in cache.iterdir() if entry.is_dir()]


def test_what_was_read_is_found_again_and_what_changed_is_read_anew(tmp_path: Path, cache) -> None:
    rows = [{"a": "x", "b": "y"}]
    source = CorpusConfig(write(tmp_path, rows), ["a", "b"])
    first = open_corpus("x", source)
    written = (first.folder / "meta.json").stat().st_mtime_ns
    moved = CorpusConfig(write(tmp_path, rows, "moved.jsonl"), ["a", "b"], weight=3.0)
    for again in (open_corpus("x", source), open_corpus("other", moved)):
        assert again.folder == first.folder
        assert (again.folder / "meta.json").stat().st_mtime_ns == written
    source.columns = ["b", "a"]
    assert texts(open_corpus("x", source)) == [("y", "x")]
    write(tmp_path, [{"a": "z", "b": "y"}])
    assert texts(open_corpus("x", source)) == [("y", "z")]


def test_a_corpus_travels_as_its_path(tmp_path: Path) -> None:
    rows = [{"a": f"text {n}"} for n in range(1000)]
    corpus = open_corpus("x", CorpusConfig(write(tmp_path, rows), ["a"]))
    texts(corpus)
    assert corpus.keys.sum() > 0
    packed = pickle.dumps(corpus)
    assert len(packed) < 1000
    assert texts(pickle.loads(packed)) == texts(corpus)


def test_a_reading_that_breaks_off_leaves_nothing_and_is_done_anew(
    tmp_path: Path, cache: Path
) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": "x"}\n' * 20000 + "broken\n")
    with pytest.raises(InputError, match="row 20001: not jsonl"):
        open_corpus("x", CorpusConfig(str(file), ["a"]))
    assert not [entry for entry in cache.iterdir() if entry.is_dir()]
    file.write_text('{"a": "x"}\n' * 3)
    assert len(open_corpus("x", CorpusConfig(str(file), ["a"]))) == 3


def test_processes_that_begin_together_read_once_and_all_find_it(
    tmp_path: Path, cache: Path
) -> None:
    file = write(tmp_path, [{"a": f"text {n}"} for n in range(20000)])
    context = multiprocessing.get_context("forkserver")  # which has imported what they need
    barrier, results = context.Barrier(3), context.Queue()
    arguments = (file, str(cache.parent), barrier, results)
    processes = [context.Process(target=open_together, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    opened = {results.get(timeout=120) for _ in processes}
    assert [rows for rows, _ in opened] == [20000]
    for process in processes:
        process.join()


def test_a_process_killed_while_reading_holds_up_nobody(tmp_path: Path, cache: Path) -> None:
    file = write(tmp_path, [{"a": "x"}])
    source = CorpusConfig(file, ["a"])
    target = open_corpus("x", source).folder
    for entry in (*target.iterdir(), target):
        entry.unlink() if entry.is_file() else entry.rmdir()
    code = f"""
import time
from pathlib import Path
from mic.files import made_once
print("begun", flush=True)
made_once(Path({str(target)!r}), lambda partial: (partial.joinpath("half").write_text("x"),
     print("making", flush=True), time.sleep(600)))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline().strip() for _ in range(2)] == ["begun", "making"]
    process.kill()
    process.wait()
    assert texts(open_corpus("x", source)) == [("x",)]
    assert sorted(entry.name for entry in target.iterdir()) == sorted(
        ["texts.arrow", "keys.u64", "lengths.i32", "meta.json"]
    )


def test_a_cache_that_cannot_be_written_is_named_with_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MIC_CACHE", str(tmp_path / "file"))
    with pytest.raises(RunError, match="MIC_CACHE"):
        open_corpus("x", CorpusConfig(write(tmp_path, [{"a": "x"}]), ["a"]))


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, cache: Path, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    file = write(tmp_path, [{"a": "x"}])
    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "write_rows", full)
        with pytest.raises(RunError, match=r"No space left on device.*free some space"):
            open_corpus("x", CorpusConfig(file, ["a"]))
    assert not [entry for entry in cache.iterdir() if entry.is_dir()]
    assert len(open_corpus("x", CorpusConfig(file, ["a"]))) == 1
