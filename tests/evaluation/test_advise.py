"""`mic advise`: what is found at every point, whether it is enough, and the words for it."""

import gzip
import json
import math
import shutil

import numpy as np
import pytest
import torch
from references import gaussian
from sentences import answer, sentence

from mic.cli.main import main, parse
from mic.config.schema_data import RetrievalFiles
from mic.encoder.embedding_file import Embeddings
from mic.encoder.encoder import Encoder
from mic.errors import InputError
from mic.evaluation.advise.collection import Collection, read_collection
from mic.evaluation.advise.quality import OperatingPoint, QueryScores, measure_quality
from mic.evaluation.advise.run import AdviceRequest, advise
from mic.evaluation.advise.selection import Advice, KeptShare, choose, kept_shares, vector_bytes
from mic.evaluation.advise.speed import measure_speed, searcher
from mic.evaluation.advise.summary import advice_notes, describe_point, how_to, ladder, verdict
from mic.evaluation.models import truncation_cost
from mic.evaluation.tasks.tasks import retrieval_task
from mic.metrics.bootstrap import draw_counts
from mic.metrics.quantization import as_compared, from_int8, int8_ranges, to_int8
from mic.nested import unit

DOCUMENTS, QUERIES, DIMS = 300, 25, [8, 12, 40]


def write_rows(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A corpus, queries and BEIR's relevance judgements, which five of the queries lack."""
    folder = tmp_path_factory.mktemp("collection")
    documents = ({"_id": f"d{n}", "title": f"the {n % 7}", "text": answer(n)} for n in range(150))
    write_rows(folder / "corpus.jsonl", documents)
    queries = ({"_id": f"q{n}", "text": sentence(n)} for n in range(30))
    write_rows(folder / "queries.jsonl", queries)
    lines = "".join(f"q{n}\td{n}\t2\nq{n}\td{n + 1}\t1\nq{n}\td9\t0\n" for n in range(25))
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    return folder


def command(files, *more, qrels=True):
    options = ["--corpus", files / "corpus.jsonl", "--queries", files / "queries.jsonl"]
    return [*map(str, [*options, *(["--qrels", files / "qrels.tsv"] if qrels else []), *more])]


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Rounds of the clock that do not take the tests' time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mic.evaluation.advise.speed.SECONDS", 1e-4)
        patch.setattr("mic.evaluation.advise.speed.ROUNDS", 2)
        yield


@pytest.fixture
def world(tmp_path):
    """Random documents and queries on disk, with judgements."""
    documents, queries = gaussian(DOCUMENTS, DIMS[-1]).float(), gaussian(QUERIES, DIMS[-1], seed=1)
    stored = []
    for name, rows in (("d", documents), ("q", queries.float())):
        rows.numpy().tofile(tmp_path / name)
        stored.append(Embeddings(tmp_path / name, DIMS[-1], np.arange(len(rows))))
    relevant = [{n: 2.0, n + 40: 1.0, (7 * n) % 300: 1.0} for n in range(QUERIES)]
    own = [None if n % 3 else 2 * n + 100 for n in range(QUERIES)]
    texts = (["d"] * DOCUMENTS, ["q"] * QUERIES)
    return Collection(*texts, relevant, own), *stored


def slow_ranking(collection, documents, queries, point):
    """The documents of each query at a point: coded, compared in fp64, equal ones by number."""
    d, q = (unit(x[:][:, : point.dim].double()) for x in (documents, queries))
    if point.precision == "int8":
        ranges = int8_ranges(unit(documents[:][:, : point.dim]))
        d, q = (unit(from_int8(to_int8(x.float(), ranges), ranges).double()) for x in (d, q))
    if point.precision == "binary":
        d, q = (2 * (x > 0).double() - 1 for x in (d, q))
    rankings = []
    for cosines, identical in zip((q @ d.T).tolist(), collection.identical, strict=True):
        order = sorted(range(len(d)), key=lambda n: (-cosines[n], n))
        rankings.append([n for n in order if n != identical])
    return rankings


def slow_ndcg(ranked, relevant):
    gained = sum(relevant.get(n, 0) / math.log2(place + 2) for place, n in enumerate(ranked[:10]))
    best = sorted(relevant.values(), reverse=True)[:10]
    return gained / sum(gain / math.log2(place + 2) for place, gain in enumerate(best))


@pytest.mark.parametrize("with_qrels", [True, False])
def test_quality_is_that_of_loops_over_coded_vectors(world, with_qrels, monkeypatch):
    monkeypatch.setattr("mic.evaluation.advise.quality.CHUNK", 77)  # the corpus in several parts
    collection, documents, queries = world
    asked = collection if with_qrels else collection._replace(relevant=None)
    scores = measure_quality(asked, documents, queries, DIMS)
    assert scores.metric == ("nDCG@10" if with_qrels else "agreement")
    assert scores.full == OperatingPoint(40, "fp32")
    assert len(scores.values) == 9
    whole = slow_ranking(collection, documents, queries, scores.full)
    for point, values in scores.values.items():
        ranked = slow_ranking(collection, documents, queries, point)
        if with_qrels:
            expected = map(slow_ndcg, ranked, collection.relevant)
        else:
            pairs = zip(ranked, whole, strict=True)
            expected = (len({*ranking[:10]} & {*best[:10]}) / 10 for ranking, best in pairs)
        assert values.tolist() == pytest.approx(list(expected), abs=1e-9), point
    assert with_qrels or scores.values[scores.full].tolist() == [1.0] * QUERIES


@pytest.mark.parametrize("precision", ["fp32", "int8", "binary"])
@pytest.mark.parametrize("dim", [7, 64, 67])
def test_what_is_timed_finds_the_same_documents(dim, precision):
    documents, queries = (unit(gaussian(n, 70, seed=n)).float() for n in (5000, 12))
    vectors, asked = (unit(x[:, :dim]) for x in (documents, queries))
    ranges = int8_ranges(vectors[:1000])
    search = searcher(documents, OperatingPoint(dim, precision), ranges)
    seen, others = (unit(as_compared(x, ranges)[precision]) for x in (vectors, asked))
    cosines = others @ seen.T
    for row, prepared in zip(cosines, search.prepare(asked), strict=True):
        best = row[search.best(prepared)]  # of equal ones any
        torch.testing.assert_close(best, row.topk(10).values, rtol=0, atol=1e-5)


def test_speed_is_measured_beside_the_full_vectors(world, monkeypatch):
    _, documents, queries = world
    points = [OperatingPoint(8, "int8"), OperatingPoint(40, "fp32")]
    threads = torch.get_num_threads()
    speeds = measure_speed(documents, queries, points, points[1])
    assert speeds.rows == DOCUMENTS
    assert speeds.by_point[points[1]].times == 1.0
    assert all(speed.per_second > 0 and speed.times > 0 for speed in speeds.by_point.values())
    assert torch.get_num_threads() == threads
    monkeypatch.setattr("mic.evaluation.advise.speed.BYTES", 4 * 40 * 100)
    searched = []

    def watched(matrix, point, ranges):
        searched.append(len(matrix))
        return searcher(matrix, point, ranges)

    monkeypatch.setattr("mic.evaluation.advise.speed.searcher", watched)
    assert measure_speed(documents, queries, points, points[1]).rows == 100
    assert set(searched) == {100}


def test_the_interval_of_the_kept_share_is_that_of_queries_drawn_anew():
    generator = np.random.default_rng(0)
    full, cut = (torch.tensor(generator.uniform(0, 1, 40)) for _ in range(2))
    points = {OperatingPoint(4, "fp32"): cut, OperatingPoint(8, "fp32"): full}
    by_point = kept_shares(QueryScores("nDCG@10", points, OperatingPoint(8, "fp32")))
    shares = []
    for block in draw_counts("advise", 40):
        for counts in block:
            numbers = [n for n, count in enumerate(counts) for _ in range(int(count))]
            shares.append(sum(cut[n] for n in numbers) / sum(full[n] for n in numbers))
    narrow = by_point[OperatingPoint(4, "fp32")]
    assert narrow.quality == pytest.approx(100 * cut.mean().item())
    assert narrow.share == pytest.approx(100 * (cut.mean() / full.mean()).item())
    expected = np.quantile([float(share) for share in shares], [0.025, 0.975])
    assert [narrow.low, narrow.high] == pytest.approx(100 * expected)
    assert by_point[OperatingPoint(8, "fp32")] == KeptShare(
        *map(pytest.approx, (100 * full.mean().item(), 100, 100, 100))
    )


def test_full_vectors_that_find_nothing_are_refused():
    nothing = {OperatingPoint(8, "fp32"): torch.zeros(10)}
    with pytest.raises(InputError, match="nDCG@10 of the full vectors is 0: no query finds"):
        kept_shares(QueryScores("nDCG@10", nothing, OperatingPoint(8, "fp32")))


FULL = OperatingPoint(384, "fp32")
SHARES = {
    OperatingPoint(64, "binary"): KeptShare(0, 80.0, 78.0, 82.0),
    OperatingPoint(64, "int8"): KeptShare(0, 99.2, 98.1, 100.4),
    OperatingPoint(16, "fp32"): KeptShare(0, 70.0, 68.0, 72.0),  # as large as 64 in int8
    OperatingPoint(128, "int8"): KeptShare(0, 99.5, 99.0, 100.1),
    OperatingPoint(384, "int8"): KeptShare(0, 99.9, 99.6, 100.2),
    FULL: KeptShare(0, 100.0, 100.0, 100.0),
}


@pytest.mark.parametrize(
    ("keep", "sure", "perhaps"),
    [
        (
            0.99,
            OperatingPoint(128, "int8"),
            OperatingPoint(64, "int8"),
        ),  # an end that is the share itself counts
        (0.991, OperatingPoint(384, "int8"), OperatingPoint(64, "int8")),
        (0.98, OperatingPoint(64, "int8"), None),
        (0.995, OperatingPoint(384, "int8"), OperatingPoint(128, "int8")),
        (0.998, None, OperatingPoint(384, "int8")),
        (1.0, None, None),
        (0.68, OperatingPoint(64, "binary"), None),
    ],
)
def test_the_smallest_is_taken_that_keeps_the_share_in_its_whole_interval(keep, sure, perhaps):
    assert choose(SHARES, FULL, keep) == Advice(sure, perhaps, OperatingPoint(384, "int8"))


def test_of_equally_large_vectors_those_that_keep_more_are_taken():
    shares = {
        OperatingPoint(4, "fp32"): KeptShare(0, 99, 98, 99),
        OperatingPoint(16, "int8"): KeptShare(0, 99.5, 97, 99),
    }
    assert [vector_bytes(point) for point in shares] == [16, 16]
    assert choose({**shares, FULL: SHARES[FULL]}, FULL, 0.9).sure == OperatingPoint(16, "int8")


@pytest.fixture(scope="module")
def advised(files, model_folder, tmp_path_factory):
    """The folder that the command leaves, and what it printed."""
    to = tmp_path_factory.mktemp("advised") / "to"
    report = advise(
        AdviceRequest(
            str(model_folder),
            *(str(files / name) for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv")),
            keep=0.9,
            dims=[8, 16],
            to=to,
        )
    )
    return report, to


def test_full_precision_scores_are_those_of_the_retrieval_task(files, advised, encoder, tmp_path):
    report, _ = advised
    rows = (row.split("\t") for row in (files / "qrels.tsv").read_text().splitlines()[1:])
    qrels = write_rows(
        tmp_path / "qrels.jsonl",
        ({"query_id": q, "doc_id": d, "score": int(score)} for q, d, score in rows),
    )
    paths = [str(files / name) for name in ("corpus.jsonl", "queries.jsonl")]
    task = retrieval_task("task", RetrievalFiles(*paths, str(qrels)))
    expected = task.score(encoder.embed(task.texts), [8, 16, 32])["ndcg@10"]
    for dim, value in expected.items():
        assert report.shares[OperatingPoint(dim, "fp32")].quality == pytest.approx(value, abs=1e-3)


def test_what_is_written_is_what_was_found(advised):
    report, to = advised
    assert sorted(file.name for file in to.iterdir()) == ["advice.json", "kept.png", "table.md"]
    content = json.loads((to / "advice.json").read_text())
    assert (content["documents"], content["queries"], content["keep"]) == (150, 25, 0.9)
    assert content["use"] == (report.advice.sure._asdict() if report.advice.sure else None)
    assert [(row["dim"], row["precision"]) for row in content["points"]] == list(report.shares)
    for row in content["points"]:
        share = report.shares[OperatingPoint(row["dim"], row["precision"])]
        assert (row["kept"], *row["interval"]) == share[1:]
        assert row["index_bytes"] == 150 * row["bytes"]
    table = (to / "table.md").read_text()
    assert "| 32 fp32 | 128 | 0.02 |" in table
    assert "5 queries without a relevant document were left out." in table
    assert "**tiny-bert: 150 documents, 25 queries**" in table
    assert (to / "kept.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_encodes_each_text_once_and_says_what_to_do(
    files, model_folder, encoded, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    arguments = command(files, "--dims", "8,16", "--keep", "0.5", qrels=False)
    assert main(["advise", str(model_folder), *arguments]) == 0
    texts = [text for call in encoded for text in call]
    assert len(texts) == len(set(texts)) == 180
    output = capsys.readouterr().out
    assert "Quality is agreement, as there are no relevance judgements" in " ".join(output.split())
    assert "kept, not how good they are" in " ".join(output.split())
    rows = [line for line in output.splitlines() if line.startswith("│")]
    assert len(rows) == 9  # on a terminal of 80 columns each is a line
    assert not any("…" in row for row in rows)
    assert "\nUse " in output
    (line,) = (line for line in output.splitlines() if line.startswith("  mic export"))
    assert parse(line.split()[1:]).model == str(model_folder)


def test_an_interrupted_encoding_goes_on_and_nothing_is_left_of_it(
    files, model_folder, encoded, monkeypatch, tmp_path
):
    monkeypatch.setenv("MIC_CACHE", str(tmp_path / "cache"))
    counting = Encoder.embed
    arguments = ["advise", str(model_folder), *command(files, "--batch-size", "4")]

    def interrupted(self, texts, **options):
        if len(encoded) == 2:
            raise KeyboardInterrupt
        return counting(self, texts, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "embed", interrupted)
        assert main(arguments) == 1
    assert [len(call) for call in encoded] == [32, 32]
    assert main(arguments) == 0
    assert len(encoded) == 6  # the corpus has 150 texts, of which 86 were left
    assert len({text for call in encoded for text in call}) == 175
    assert list((tmp_path / "cache" / "advise").iterdir()) == []


def test_words_when_something_or_nothing_keeps_the_share(advised):
    report, _ = advised
    speed = report.speeds.by_point[OperatingPoint(32, "fp32")]._replace(times=8.04)
    speeds = report.speeds._replace(by_point=dict.fromkeys(SHARES, speed))
    report = report._replace(
        shares=SHARES, speeds=speeds, keep=0.99, scores=report.scores._replace(full=FULL)
    )
    shown = report._replace(advice=choose(SHARES, FULL, 0.99))
    assert verdict(shown) == [
        "Use 128 dimensions as int8: 128 bytes a vector, 1/12 of the full; keeps 99.5 % "
        "[99.0, 100.1] of nDCG@10; search 8.0x as fast here.",
        "Perhaps 64 dimensions as int8 will do: 64 bytes, 99.2 % [98.1, 100.4]; 25 queries are too "
        "few to be sure of 99 %.",
    ]
    assert ladder(shown) == [
        "Surely kept, if less is enough: 98 % by 64 dimensions as int8 (64 bytes)."
    ]
    assert "--dim 128" in how_to(shown)[0]
    assert how_to(shown)[2].startswith('  codes = quantize_embeddings(vectors, "int8", calib')
    nothing = report._replace(advice=choose(SHARES, FULL, 1.0), keep=1.0)
    (sentence,) = verdict(nothing)
    assert sentence.startswith(
        "Nothing smaller surely keeps 100 % of the full 384 dimensions in fp32"
    )
    assert sentence.endswith(describe_point(nothing, OperatingPoint(384, "int8")))
    assert "--dim" not in how_to(nothing)[0]


def test_what_cutting_costs_a_model_that_is_not_nested_is_said(
    advised, files, model_folder, tmp_path, capsys
):
    report, _ = advised
    (note,) = (note for note in advice_notes(report) if "nested" in note)
    assert note.startswith(
        "No nested training is known of tiny-bert: at 8 of 32 dimensions it keeps"
    )
    nested = shutil.copytree(model_folder, tmp_path / "nested")
    known = json.loads((nested / "config.json").read_text())
    (nested / "config.json").write_text(json.dumps({**known, "matryoshka_dimensions": [8, 32]}))
    assert main(["advise", str(nested), *command(files, "--dims", "8")]) == 0
    assert "nested training" not in capsys.readouterr().out
    assert truncation_cost("bert", {64: 50.0}, 384, "nDCG@10") == ""


def test_texts_are_read_from_text_files_and_from_a_single_column(tmp_path):
    with gzip.open(tmp_path / "corpus.txt.gz", "wt") as file:
        file.write("\n\n".join(sentence(n) for n in range(120)))
    rows = "\n".join(["question", *(answer(n) for n in range(11)), sentence(7)])
    (tmp_path / "queries.csv").write_text(rows)
    paths = [str(tmp_path / name) for name in ("corpus.txt.gz", "queries.csv")]
    collection = read_collection(*paths, None)
    assert collection.documents == [sentence(n) for n in range(120)]
    assert collection.relevant is None
    assert collection.identical == [None] * 11 + [
        7
    ]  # a query that is a document does not find itself


def test_a_query_that_is_a_document_is_passed_over_unless_it_answers_itself(tmp_path):
    texts = [{"_id": str(n), "title": "a", "text": sentence(n)} for n in range(120)]
    corpus = write_rows(tmp_path / "corpus.jsonl", texts)
    rows = [{"_id": str(n + 1), "text": sentence(n)} for n in range(10)]
    queries = write_rows(tmp_path / "queries.jsonl", rows)
    qrels = tmp_path / "qrels.csv"
    lines = "".join(f"{n + 1},{n if n == 3 else n + 50},1\n" for n in range(10))
    qrels.write_text(f"query_id,doc_id,score\n{lines}")
    collection = read_collection(str(corpus), str(queries), str(qrels))
    assert collection.identical == [None if n == 3 else n for n in range(10)]  # its id says nothing
    assert collection.documents[0] == f"a {sentence(0)}"


def nothing_else(files, file, change):
    """The collection with one file changed."""
    copy = file.parent
    for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv"):
        (copy / name).write_text((files / name).read_text())
    file.write_text(change(file.read_text()))
    return command(copy)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("corpus.jsonl", lambda text: "", "corpus.jsonl: empty; give a file with at least one row"),
        ("corpus.jsonl", lambda text: text[:900], "mend the row"),
        ("corpus.jsonl", lambda text: text + text, "row 151: _id 'd0' repeats"),
        ("corpus.jsonl", lambda text: text.replace("_id", "key"), "no column '_id', by which --qr"),
        ("corpus.jsonl", lambda text: text.replace('"text"', '"body"'), "no column 'text'; it has"),
        (
            "corpus.jsonl",
            lambda text: "".join(text.splitlines(True)[:99]),
            "99 documents; the 10 best of so few say nothing: give at least 100",
        ),
        (
            "queries.jsonl",
            lambda text: text.replace(sentence(4), " "),
            "queries.jsonl: row 5: column 'text' is ' ', not text; mend the row, or remove it",
        ),
        (
            "qrels.tsv",
            lambda text: text.replace("\td3\t", "\td3000\t"),
            "document 'd3000' is not in the file of --corpus",
        ),
        ("qrels.tsv", lambda text: text.replace("q3\t", "q3000\t"), "query 'q3000' is not in the"),
        ("qrels.tsv", lambda text: text.replace("\t2\n", "\tx\n"), "'x', not a number"),
        ("qrels.tsv", lambda text: text.replace("query-id", "query"), "no column 'query_id' or 'q"),
        (
            "qrels.tsv",
            lambda text: text.replace("\t2\n", "\t0\n").replace("\t1\n", "\t0\n"),
            "no row with a score above 0",
        ),
        (
            "qrels.tsv",
            lambda text: "".join(text.splitlines(True)[:7]),
            "2 queries with a document in",
        ),
    ],
)
def test_bad_files_are_refused_before_anything_is_encoded(
    files, model_folder, encoded, tmp_path, capsys, name, change, says
):
    arguments = nothing_else(files, tmp_path / name, change)
    assert main(["advise", str(model_folder), *arguments, "--to", str(tmp_path / "to")]) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("mic: error: ") == len(message.splitlines()) == 1
    assert not encoded
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"--corpus": "nowhere.txt"}, "--corpus nowhere.txt: no such file"),
        ({"--queries": "some/dataset"}, "--queries some/dataset: no such file"),
        ({"--corpus": __file__}, "unknown format; name it .jsonl, .csv, .tsv, .parquet or .txt"),
        ({"--dims": "8,64"}, "width 64 is above the embedding's 32"),
        ({"--to": __file__}, "is a file; name a folder"),
    ],
)
def test_bad_options_are_refused(files, model_folder, encoded, capsys, changed, says):
    given = {"--corpus": str(files / "corpus.jsonl"), "--queries": str(files / "queries.jsonl")}
    arguments = [word for option in {**given, **changed}.items() for word in option]
    assert main(["advise", str(model_folder), *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not encoded


@pytest.mark.parametrize("keep", ["0", "1.01", "99", "-1", "nan", "much"])
def test_a_share_that_is_none_is_refused(keep, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["advise", "model", "--corpus", "c", "--queries", "q", f"--keep={keep}"])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert f"{keep}: a share above 0 and at most 1, as 0.99" in message
    assert ("for 99 % write 0.99" in message) == (keep == "99")
