"""`mic data`: every figure of the report against a count by hand; bad configs in one line."""

import json
from pathlib import Path

import pytest
from sentences import answer, sentence

from mic.cli.main import main
from mic.config.loading import load
from mic.data.datamodule import PairDataModule
from mic.data.report import as_text, corpus_report, overlap
from mic.report.tables import padded_markdown
from mic.train.module import load_encoder, training_tokenize
from mic.train.run import read_data, read_tasks, train


@pytest.fixture
def config(tmp_path: Path, tiny_config: Path) -> Path:
    """Three corpora: scored pairs with repeats, labelled texts, and a validation file."""
    pairs = [
        {"a": sentence(n % 90), "b": answer(n % 90), "score": n % 4} for n in range(100)
    ]  # the last ten repeat the first ten
    words = [
        {"text": f"the {'cat ' * (n % 9 + 1)}{sentence(n)}", "label": n % 25} for n in range(75)
    ]
    held = [{"a": sentence(n), "b": answer(n)} for n in range(80, 120)]
    for name, rows in (("pairs", pairs), ("words", words), ("held", held)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    file = tmp_path / "data.yaml"
    file.write_text(f"""
base: {tiny_config}
data:
  train:
    pairs: {{path: {tmp_path}/pairs.jsonl, columns: [a, b], score: score, min_score: 1}}
    words: {{path: {tmp_path}/words.jsonl, columns: [text], label: label}}
  validation:
    held: {{path: {tmp_path}/held.jsonl, columns: [a, b]}}
evaluation:
  validation:
    sts: {{}}
    pairs: {{unseen: {{path: {tmp_path}/held.jsonl, columns: [a, b]}}}}
trainer: {{batch_size: 8}}
""")
    return file


def cells(report: str, first: str) -> list[str]:
    """The cells of the table row that begins with a text."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines()]
    matches = [row for row in rows if row and row[0] == first]
    assert len(matches) == 1, first
    return matches[0]


def test_the_report_counts_what_is_there(config: Path, capsys: pytest.CaptureFixture) -> None:
    # the base's `pairs` is merged over; its own column names must not be left behind
    assert main(["data", str(config)]) == 0
    report = capsys.readouterr().out
    read = ["pairs", "scored", "100", "25 score too low", "75"]
    used = [n for n in range(100) if n % 4 >= 1]
    repeats = len(used) - len({n % 90 for n in used})
    twice = sum(1 for n in used if sum(m % 90 == n % 90 for m in used) > 1)
    assert cells(report, "pairs") == [*read, str(repeats), f"{100 * twice / 75:.1f} %", "50.0 %"]
    assert cells(report, "words")[:5] == ["words", "labelled", "75", "none", "75"]
    assert "## train: 150 rows, 18 batches" in report
    assert (
        "An epoch leaves out 6 rows, others each time; no batch holds a text or a group" in report
    )
    assert "## validation: 40 rows, 5 batches" in report
    assert f"- words: the {'cat ' * 2}{sentence(37)}" in report
    trained_on = sum(sentence(n) in {sentence(m % 90) for m in used} for n in range(80, 120))
    assert cells(report, "unseen") == [
        "unseen",
        "40",
        str(trained_on),
        f"{100 * trained_on / 40:.1f} %",
    ]


def test_lengths_are_in_tokens_before_they_are_cut(config: Path) -> None:
    data = read_corpora(config, "encoder.max_length=10")
    report = "\n".join(corpus_report(data, {}, padded_markdown))
    lengths = sorted(
        len(ids) for (text,) in texts_of(data, 1) for ids in data.tokenize.uncut([text])
    )
    row = cells(report, "words 1")
    assert (row[1], row[2], row[4]) == (str(lengths[4]), str(lengths[37]), str(lengths[-1]))
    assert row[5] == f"{100 * sum(length > 10 for length in lengths) / 75:.1f} %"
    assert "cut at 10" in report


def test_padding_and_tokens_are_those_of_the_batches(config: Path) -> None:
    data = read_corpora(config)
    batches = list(data.train_dataloader())
    masks = [tokens["attention_mask"] for batch in batches for tokens in batch.columns]
    tokens, places = sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)
    line = next(
        line
        for line in corpus_report(data, {}, padded_markdown)
        if line.startswith("The first 18 batches")
    )
    assert f"{100 * (1 - tokens / places):.1f} % padding, {tokens / 144:.1f} tokens a row" in line


def test_overlap_counts_different_texts_in_any_column(config: Path) -> None:
    data = read_corpora(config)
    known = [sentence(1), answer(2), f"the cat {sentence(0)}"]
    assert overlap(data, [*known, "never read", sentence(950), known[0]]) == 3
    assert overlap(data, ["never read"]) == 0


def test_a_run_logs_what_was_left_out_and_what_it_is_judged_by_and_knows(config: Path) -> None:
    settings = load(config)
    results = train(settings)
    first = json.loads((Path(settings.runs) / "tiny" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["data/skipped_rows"] == 25
    assert first["data/left_out_rows"] == 6
    assert first["data/overlap/unseen"] == results["meta"]["texts_trained_on"]["unseen"] > 0
    assert first["data/overlap/found"] == results["meta"]["texts_trained_on"]["found"]
    used = {n % 90 for n in range(100) if n % 4}
    assert first["data/overlap/found"] == len(used & set(range(50))) == 40


def test_no_task_is_needed_for_a_report(config: Path, capsys: pytest.CaptureFixture) -> None:
    empty = ["evaluation.validation.pairs={}", "evaluation.test.pairs={}"]
    assert main(["data", str(config), *empty]) == 0
    assert "## train: 150 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train.words.columns=[text,text]", "a labelled text has one column"),
        (
            "data.train.pairs.min_score=99",
            "no row is left to train on (100 read, 100 score too low)",
        ),
        ("data.train.pairs.weight=2", "data.train.words.weight: not set, while other corpora have"),
        ("data.train.words.path=nowhere.csv", "nowhere.csv: no such file"),
        ("trainer.batch_size=151", "data.train: 150 rows for trainer.batch_size=151"),
        ("data.tokenise=fly", "unknown key 'data.tokenise'; did you mean 'data.tokenize'?"),
    ],
)
def test_a_bad_config_is_one_line_and_exit_2(
    config: Path, capsys: pytest.CaptureFixture, override: str, message: str
) -> None:
    assert main(["data", str(config), override]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("mic: error: ")
    assert message in line


def test_a_budget_of_tokens_needs_tokens(config: Path, capsys: pytest.CaptureFixture) -> None:
    overrides = ["trainer.batch_tokens=512", "data.tokenize=fly"]
    assert main(["data", str(config), *overrides]) == 2
    assert "set data.tokenize=ahead" in capsys.readouterr().err
    assert main(["data", str(config), overrides[0]]) == 0


def test_a_table_is_aligned_and_counts_have_commas() -> None:
    assert padded_markdown(["name", "rows"], [as_text(["a", 12345])]) == (
        "| name | rows   |\n| ---- | ------ |\n| a    | 12,345 |"
    )


def read_corpora(config: Path, *overrides: str) -> PairDataModule:
    settings = load(config, *overrides)
    data = read_data(settings, training_tokenize(settings, load_encoder(settings)))
    assert read_tasks(settings, data)
    return data


def texts_of(data: PairDataModule, corpus: int) -> list[tuple[str, ...]]:
    return list(data.train.row_index.corpora[corpus].all_texts())
