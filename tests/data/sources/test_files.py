"""What reading rows claims: every format gives the same rows, every bad file its row and cure."""

import csv
import gzip
import hashlib
import io
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mic.config.loading import load
from mic.config.schema_data import CorpusConfig, Source
from mic.data.sources.examples import BAD, read_examples
from mic.data.sources.files import LONGEST, SourceRow, number_of, read_rows, source_fingerprint
from mic.errors import InputError

ROWS = [
    ("a cat, a dog", "said “moo”"),
    ('"quoted" words', "tab\tand\nnewline"),
    ("café", "Ω 🐄"),
    ("  spaces kept  ", "last"),
]
COLUMNS = ["asked", "answer"]
GOOD = '{"asked": "x", "answer": "y"}\n'


def jsonl(rows: list[tuple[str, ...]]) -> bytes:
    lines = (json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) for row in rows)
    return "".join(line + "\n" for line in lines).encode()


def separated(delimiter: str) -> Callable[[list[tuple[str, ...]]], bytes]:
    def write(rows: list[tuple[str, ...]]) -> bytes:
        stream = io.StringIO(newline="")
        csv.writer(stream, delimiter=delimiter).writerows([COLUMNS, *rows])
        return stream.getvalue().encode()

    return write


def parquet(rows: list[tuple[str, ...]]) -> bytes:
    stream = io.BytesIO()
    columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


WRITERS = {"jsonl": jsonl, "csv": separated(","), "tsv": separated("\t"), "parquet": parquet}
TEXT_FORMATS = ("jsonl", "csv", "tsv")


def source(folder: Path, name: str, content: bytes | str) -> CorpusConfig:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return CorpusConfig(str(file), COLUMNS)


def read(given: CorpusConfig, on_bad_row: str = "raise") -> tuple[list[tuple[str, ...]], int]:
    """The texts of a source's rows, and how many rows were skipped."""
    counts: Counter[str] = Counter()
    rows = [example.texts for example in read_examples(given, on_bad_row, counts)]
    assert counts["read"] == len(rows) + counts[BAD]
    return rows, counts[BAD]


def refusal(given: CorpusConfig) -> str:
    with pytest.raises(InputError) as caught:
        read(given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    assert read(source(tmp_path, f"x.{kind}", WRITERS[kind](ROWS))) == (ROWS, 0)


@pytest.mark.parametrize("kind", TEXT_FORMATS)
def test_gzip_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    packed = gzip.compress(WRITERS[kind](ROWS))
    assert read(source(tmp_path, f"x.{kind}.gz", packed)) == (ROWS, 0)


@pytest.mark.parametrize("kind", TEXT_FORMATS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_byte_order_mark_is_no_part_of_the_text(
    tmp_path: Path, kind: str, pack: Callable[[bytes], bytes]
) -> None:
    suffix = ".gz" if pack is gzip.compress else ""
    content = pack(b"\xef\xbb\xbf" + WRITERS[kind](ROWS))
    assert read(source(tmp_path, f"x.{kind}{suffix}", content)) == (ROWS, 0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", "\n" + GOOD + "\n  \n" + GOOD.strip() + "\r\n\n"),
        ("x.csv", "asked,answer\n\nx,y\r\n\nx,y\n\n"),
        ("x.csv", "asked,answer\rx,y\rx,y"),
        ("x.tsv", "asked\tanswer\n\nx\ty\nx\ty"),
    ],
)
def test_blank_lines_and_any_line_ends_are_no_rows(tmp_path: Path, name: str, content: str) -> None:
    assert read(source(tmp_path, name, content))[0] == [("x", "y")] * 2


def test_columns_come_as_named_and_others_are_left(tmp_path: Path) -> None:
    given = source(tmp_path, "x.csv", "a,asked,b,answer\n1,x,2,y\n")
    assert read(given)[0] == [("x", "y")]
    given.columns = ["answer", "answer", "a"]
    assert read(given)[0] == [("y", "y", "1")]


def test_the_limit_counts_from_the_top(tmp_path: Path) -> None:
    given = source(tmp_path, "x.jsonl", jsonl(ROWS) + b"broken")
    given.limit = 2
    assert read(given)[0] == ROWS[:2]
    given.limit = 4
    assert read(given)[0] == ROWS


def test_where_keeps_the_rows_with_its_values_and_the_limit_counts_them(tmp_path: Path) -> None:
    lines = "asked,answer,split,year\na,1,test,1\nb,2,train,1\nc,3,test,2\nd,4,test,1\ne,5,test,1\n"
    given = source(tmp_path, "x.csv", lines)
    given.where = {"split": "test", "year": "1"}
    assert read(given)[0] == [("a", "1"), ("d", "4"), ("e", "5")]
    given.limit = 2
    assert read(given)[0] == [("a", "1"), ("d", "4")]
    lines = '{"asked": "a", "answer": "1", "meta": {"fold": 3}}\n'
    nested = source(tmp_path, "x.jsonl", lines + lines.replace('"a"', '"b"').replace("3", "4"))
    nested.where = {"meta.fold": "4"}
    assert read(nested)[0] == [("b", "1")]


def test_where_is_a_setting_of_every_source(tmp_path: Path) -> None:
    given = source(tmp_path, "x.csv", "asked,answer,year\na,1,2015\nb,2,2014\n")
    sources = [f"data.train.x.{key}" for key in (f"path={given.path}", "where.year=2015")]
    task = f"evaluation.test.sts.y={{path: {given.path}, where: {{year: 2014}}}}"
    (tmp_path / "x.yaml").write_text("")
    config = load(tmp_path / "x.yaml", *sources, task)
    assert config.data.train["x"].where == {"year": "2015"}
    assert [row.get("asked") for row in read_rows(config.data.train["x"])] == ["a"]
    assert [row.get("asked") for row in read_rows(config.evaluation.test.sts["y"])] == ["b"]


def test_where_that_no_row_is_like_says_what_rows_are_like(tmp_path: Path) -> None:
    given = source(tmp_path, "x.csv", "asked,answer,split\na,1,dev\nb,2,train\n")
    given.where = {"split": "test"}
    with pytest.raises(InputError, match=r"no row is as where=.* says: split is dev, train"):
        read(given)
    given.where = {"fold": "test"}
    with pytest.raises(InputError, match="no column 'fold'"):
        read(given)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", "", "empty; give a file with at least one row"),
        ("x.jsonl", "\n\n", "empty; give a file with at least one row"),
        ("x.csv", "asked,answer\n", "empty; give a file with at least one row"),
        ("x.txt", GOOD, "unknown format; name it .jsonl, .csv, .tsv, .parquet (or .gz)"),
        ("x.csv", "asked,other\nx,y\n", "no column 'answer'; it has ['asked', 'other']"),
        ("x.jsonl", '{"a": "x"}\n', "no column 'asked'; it has ['a']"),
    ],
)
def test_a_file_without_the_rows_is_refused_with_a_cure(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    given = source(tmp_path, name, content)
    assert refusal(given) == f"{given.path}: {message}"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("null", "is empty"),
        ('""', "is empty"),
        ('"  "', "is '  ', not text"),
        ("3", "is 3, not text"),
        ("NaN", "is nan, not text"),
        ('["x"]', "is ['x'], not text"),
        (r'"half \ud83d"', r"is 'half \ud83d', not text"),
        (None, "is empty"),
    ],
)
def test_a_row_without_text_is_refused_or_skipped(
    tmp_path: Path, value: str | None, problem: str
) -> None:
    bad = '{"asked": "x"' + (f', "answer": {value}' if value else "") + "}\n"
    given = source(tmp_path, "x.jsonl", GOOD + bad + GOOD + bad)
    cure = "mend the row or set data.on_bad_row=skip"
    assert refusal(given) == f"{given.path}: row 2: column 'answer' {problem}; {cure}"
    assert read(given, "skip") == ([("x", "y")] * 2, 2)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.jsonl", GOOD + "\n" + '{"asked": \n', "row 2: not jsonl (Expecting value)"),
        ("x.jsonl", GOOD + '["x", "y"]\n', "row 2: not jsonl (the line is no JSON object)"),
        ("x.jsonl", GOOD + '{"a": ' + "9" * 5000 + "}\n", "row 2: not jsonl"),
        ("x.jsonl", GOOD + "[" * 100_000, "row 2: not jsonl"),
        ("x.csv", "asked,answer\nx,y\nx,y,z\n", "row 2: not csv (its number of fields"),
        ("x.csv", "asked,answer\nx,y\nx\n", "row 2: not csv (its number of fields"),
        ("x.csv", 'asked,answer\nx,y\nx,"y\n', "row 2: not csv (unexpected end of data)"),
        ("x.tsv", "asked\tanswer\nx\ty\nx\n", "row 2: not tsv (its number of fields"),
        ("x.parquet", GOOD, "row 1: not parquet"),
        ("x.parquet", parquet(ROWS)[:-40], "row 1: not parquet"),
        ("x.parquet", b"", "row 1: not parquet"),
    ],
)
def test_what_is_not_of_its_format_is_named_by_its_row(
    tmp_path: Path, name: str, content: bytes | str, reason: str
) -> None:
    given = source(tmp_path, name, content)
    message = refusal(given)
    assert message.startswith(f"{given.path}: {reason}")
    assert message.endswith("mend the row, or name the file after what it holds")


def damaged(content: bytes, start: int) -> bytes:
    return content[:start] + b"\xff" * 60 + content[start + 60 :]


NOISE = random.Random(0)
PACKED = gzip.compress(jsonl([(NOISE.randbytes(9).hex(), "y") for _ in range(2000)]))


@pytest.mark.parametrize(
    ("content", "row"),
    [
        (PACKED[:-9000], None),
        (PACKED[:-4], 2000),
        (PACKED[:-8] + b"\0" * 8, 2000),
        (damaged(PACKED, 300), 0),
        (GOOD.encode(), 0),
    ],
    ids=["cut", "cut in the checksum", "other checksum", "damaged", "not packed"],
)
def test_what_is_not_whole_gzip_says_after_which_row(
    tmp_path: Path, content: bytes, row: int | None
) -> None:
    given = source(tmp_path, "x.jsonl.gz", content)
    message = refusal(given)
    assert message.startswith(f"{given.path}: after row {'' if row is None else row}")
    assert message.endswith("not a whole gzip file; fetch it again, or drop .gz from its name")


def test_a_damaged_page_of_parquet_is_refused(tmp_path: Path) -> None:
    content = parquet([(str(number), "y") for number in range(1000)])
    given = source(tmp_path, "x.parquet", damaged(content, 4))
    assert refusal(given).startswith(f"{given.path}: after row 0: not readable: ")
    assert refusal(given).endswith("fetch it again")


@pytest.mark.parametrize(
    ("name", "content", "row"),
    [
        ("x.jsonl", GOOD * 3 + '{"asked": "caf\xe9", "answer": "y"}\n', 4),
        ("x.csv", "asked,answer\nx,y\nx,caf\xe9\n", 2),
    ],
)
def test_text_that_is_not_utf8_is_named_by_its_row(
    tmp_path: Path, name: str, content: str, row: int
) -> None:
    given = source(tmp_path, name, content.encode("latin-1"))
    cure = "not UTF-8 text; convert the file with `iconv -t utf-8`"
    assert refusal(given) == f"{given.path}: row {row}: {cure}"


@pytest.mark.parametrize("path", ["x.jsonl", "./x", "~/no such file", "~nobody/x.csv", "/no/x"])
def test_a_missing_file_is_named_with_where_paths_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        refusal(CorpusConfig(path, COLUMNS)) == f"{path}: no such file (paths start at {tmp_path})"
    )


def several(folder: Path) -> Path:
    """A folder of three files with rows 1 to 6, of another file, and of a folder."""
    (folder / "all" / "deeper").mkdir(parents=True)
    for name, numbers in (("c.csv", (5, 6)), ("a.jsonl", (1, 2)), ("b.jsonl.gz", (3, 4))):
        rows = [(f"asked {number}", f"answer {number}") for number in numbers]
        content = WRITERS[name.split(".")[1]](rows)
        packed = gzip.compress(content) if name.endswith(".gz") else content
        (folder / "all" / name).write_bytes(packed)
    (folder / "all" / "README.md").write_text("no data")
    return folder / "all"


@pytest.mark.parametrize(
    ("pattern", "numbers"), [("all", range(1, 7)), ("all/*.jsonl*", range(1, 5)), ("**/c*", (5, 6))]
)
def test_a_folder_or_a_glob_is_its_files_by_name(
    tmp_path: Path, pattern: str, numbers: Sequence[int]
) -> None:
    several(tmp_path)
    given = CorpusConfig(str(tmp_path / pattern), COLUMNS)
    assert read(given)[0] == [(f"asked {n}", f"answer {n}") for n in numbers]
    given.limit = 1
    assert len(read(given)[0]) == 1


def test_a_bad_file_among_many_is_named(tmp_path: Path) -> None:
    folder = several(tmp_path)
    (folder / "bb.jsonl").write_text("")
    given = CorpusConfig(str(folder), COLUMNS)
    assert refusal(given) == f"{folder / 'bb.jsonl'}: empty; give a file with at least one row"
    (folder / "bb.jsonl").write_text('{"asked": "x"}\n')
    assert refusal(given) == f"{folder / 'bb.jsonl'}: no column 'answer'; it has ['asked']"
    packed = gzip.compress(jsonl([(str(n), "y" * 99) for n in range(9999)]))
    (folder / "bb.jsonl").rename(folder / "bb.md")
    (folder / "bb.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    assert refusal(given).startswith(f"{folder / 'bb.jsonl.gz'}: after row ")


@pytest.mark.parametrize("pattern", ["", "*.tsv"])
def test_a_folder_or_a_glob_without_files_is_refused(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "notes.md").write_text("no data")
    message = refusal(CorpusConfig(f"{tmp_path}/{pattern}", COLUMNS))
    assert message.startswith(
        f"{tmp_path}/{pattern}: no .jsonl, .csv, .tsv, .parquet file (or .gz)"
    )


def test_the_fingerprint_of_several_files_changes_with_any(tmp_path: Path) -> None:
    folder = several(tmp_path)
    before = source_fingerprint(Source(str(folder)))
    assert before == source_fingerprint(Source(f"{folder}/*"))
    (folder / "c.csv").write_bytes(WRITERS["csv"]([("asked 5", "another")]))
    assert source_fingerprint(Source(str(folder))) != before


def test_a_column_may_be_a_path_into_objects_and_lists(tmp_path: Path) -> None:
    content = '{"a": {"b": ["x", "y"]}, "c.d": "z"}\n{"a": {"b": ["x"]}, "c.d": "z"}\n'
    given = source(tmp_path, "x.jsonl", content)
    given.columns = ["a.b.1", "c.d"]
    assert read(given, "skip") == ([("y", "z")], 1)
    assert refusal(given).startswith(f"{given.path}: row 2: column 'a.b.1' is empty")


def test_a_text_of_many_megabytes_is_refused_or_skipped(tmp_path: Path) -> None:
    long = json.dumps({"asked": "x" * (LONGEST + 1), "answer": "y"})
    given = source(tmp_path, "x.jsonl", GOOD + long + "\n")
    assert refusal(given) == (
        f"{given.path}: row 2: column 'asked' has 1,000,001 characters, above 1,000,000; cut the "
        "row into passages, or set data.on_bad_row=skip"
    )
    assert read(given, "skip") == ([("x", "y")], 1)


def test_a_source_without_columns_is_refused(tmp_path: Path) -> None:
    assert "set `columns`, for example" in refusal(CorpusConfig(str(tmp_path / "x.csv"), []))


def test_an_unreachable_data_set_is_refused_at_once() -> None:
    import datasets  # noqa: F401  # its import is no part of the time measured

    started = time.monotonic()
    message = refusal(CorpusConfig("nobody/nothing", COLUMNS, split="test"))
    assert message.startswith("nobody/nothing (split test): neither a file nor a reachable Hub")
    assert message.endswith("give a .jsonl, .csv, .tsv or .parquet file")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"nan"', '"much"', "null", "[1]"])
def test_a_score_that_is_no_number_is_named_by_its_row(tmp_path: Path, value: str) -> None:
    given = source(tmp_path, "x.jsonl", f'{{"score": 1}}\n{{"score": {value}}}\n')
    given.columns = ["score"]
    rows = list(read_rows(given))
    assert number_of(rows[0], "score") == number_of(SourceRow("", {"score": "1.0"}), "score") == 1
    with pytest.raises(InputError) as caught:
        number_of(rows[1], "score")
    assert str(caught.value).startswith(f"{given.path}: row 2: column 'score' is ")
    assert str(caught.value).endswith("not a number; mend it")


def test_a_fingerprint_is_the_sha256_of_the_file(tmp_path: Path) -> None:
    given = source(tmp_path, "x.jsonl", GOOD)
    assert source_fingerprint(given) == hashlib.sha256(GOOD.encode()).hexdigest()
    assert source_fingerprint(Source("owner/name", split="test")) == "hub:owner/name:test"
    pinned = Source("owner/name", split="test", subset="en", revision="1a2b")
    assert source_fingerprint(pinned) == "hub:owner/name:en:test:1a2b"
