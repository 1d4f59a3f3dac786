"""Tasks: which texts are encoded, what is asked of them, and what their embeddings score."""

import json
import math
from pathlib import Path

import pytest
import torch
from references import gaussian
from scipy.stats import spearmanr

from mic.config.schema_data import RetrievalFiles, Source, TasksConfig
from mic.errors import InputError
from mic.evaluation.tasks.tasks import (
    build_tasks,
    pairs_task,
    retrieval_from_pairs,
    retrieval_task,
    similarity_task,
    unique,
)

SCIFACT = Path(__file__).parents[3] / "shared" / "data" / "scifact"
RANKING = ["recall@1", "recall@10", "recall@100", "mrr@10", "ndcg@10", "map@100"]


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def as_source(folder, rows, columns, name="rows.jsonl"):
    named = [dict(zip(columns, row, strict=True)) for row in rows]
    return Source(write(folder / name, named), list(columns))


def beir(folder, corpus, queries, qrels):
    """The three files of a retrieval task in BEIR's columns."""
    return RetrievalFiles(
        write(folder / "corpus.jsonl", corpus),
        write(folder / "queries.jsonl", [{"_id": key, "text": text} for key, text in queries]),
        write(
            folder / "qrels.jsonl",
            [dict(zip(("query_id", "doc_id", "score"), row, strict=True)) for row in qrels],
        ),
    )


CORPUS = [
    {"_id": "d1", "title": "Cats", "text": "They sleep."},
    {"_id": "d2", "title": "", "text": "Dogs run."},
    {"_id": "d3", "text": "Fish swim."},
    {"_id": "4", "title": None, "text": "Birds fly."},
]
QUERIES = [("q1", "who sleeps"), ("q2", "who runs"), ("d3", "Fish swim."), (4, "who flies")]


def one_hot(texts, places):
    """Embeddings that point where `places` says: equal places, equal embeddings."""
    return torch.eye(max(places) + 1)[list(places)].double()


# Similarity


def test_similarity_encodes_a_repeated_text_once_and_scores_the_rows_in_their_order(tmp_path):
    rows = [("a", "b", 5), ("b", "c", "1.5"), ("a", "c", 3), ("c", "c", 0), ("d", "a", 2)]
    task = similarity_task("sts", as_source(tmp_path, rows, ["left", "right", "score"]))
    assert (task.name, task.headline) == ("sts", "spearman")
    assert task.texts == task.evaluated == ["a", "b", "c", "d"]
    embeddings = gaussian(4, 5)
    by_text = dict(zip(task.texts, embeddings, strict=True))
    for d in (2, 5):
        cosines = [
            torch.cosine_similarity(by_text[a][:d], by_text[b][:d], dim=0).item()
            for a, b, _ in rows
        ]
        expected = 100 * spearmanr(cosines, [5, 1.5, 3, 0, 2]).statistic
        assert task.score(embeddings, [2, 5])["spearman"][d] == pytest.approx(expected)


def test_similarity_is_100_when_the_cosines_are_the_scores(tmp_path):
    rows = [(f"left {n}", f"right {n}", math.cos(n / 4)) for n in range(8)]
    task = similarity_task("sts", as_source(tmp_path, rows, ["left", "right", "score"]))
    angles = torch.tensor([0.0] * 8 + [n / 4 for n in range(8)])
    perfect = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert task.score(perfect, [2]) == {"spearman": {2: pytest.approx(100)}}


@pytest.mark.parametrize(
    ("score", "says"), [("high", "row 2.*'score' is 'high', not a number"), (None, "row 2.*None")]
)
def test_a_score_that_is_no_number_is_refused_with_its_row(tmp_path, score, says):
    source = as_source(tmp_path, [("a", "b", 1), ("a", "c", score)], ["left", "right", "score"])
    with pytest.raises(InputError, match=says):
        similarity_task("sts", source)


@pytest.mark.parametrize(
    ("build", "columns", "says"),
    [(similarity_task, ["a", "b"], "name three"), (pairs_task, ["a"], "name two")],
)
def test_a_wrong_number_of_columns_is_refused(tmp_path, build, columns, says):
    source = as_source(tmp_path, [("x",) * len(columns)], columns)
    with pytest.raises(InputError, match=rf"rows.jsonl: columns .*{says}"):
        build("task", source)


# Pairs


def test_pairs_ask_each_distinct_query_once_among_the_distinct_answers(tmp_path):
    rows = [("q1", "x"), ("q2", "y"), ("q1", "z"), ("q3", "y"), ("q1", "x")]
    task = pairs_task("pairs", as_source(tmp_path, rows, ["query", "answer"]))
    assert (task.name, task.headline) == ("pairs", "ndcg@10")
    assert task.texts == ["q1", "q2", "q3", "x", "y", "z"]
    assert task.evaluated == ["q1", "q2", "q3"]
    # q1 points at both of its answers, q2 at its own, q3 at z, which is not its own
    third = torch.tensor([[0.0, 0.1, 1.0]])
    embeddings = torch.cat([torch.tensor([[1.0, 0.0, 0.9], [0.0, 1.0, 0.0]]), third, torch.eye(3)])
    scores = task.score(embeddings, [3])
    assert list(scores) == RANKING
    assert scores["recall@1"][3] == pytest.approx(100 * (1 / 2 + 1 + 0) / 3)
    assert scores["mrr@10"][3] == pytest.approx(100 * (1 + 1 + 1 / 2) / 3)
    assert scores["ndcg@10"][3] == pytest.approx(100 * (1 + 1 + 1 / math.log2(3)) / 3)


def test_a_query_that_is_also_an_answer_does_not_find_itself():
    rows = [("a", "b"), ("b", "a"), ("c", "d")]
    task = retrieval_from_pairs("duplicates", rows)
    assert task.texts == ["a", "b", "c", "b", "a", "d"]
    # a and b lie close, c and d closer: each text's nearest is itself, then its partner
    angle = {"a": 0.0, "b": 0.3, "c": 1.5, "d": 1.4}
    angles = torch.tensor([angle[text] for text in task.texts])
    scores = task.score(torch.stack([angles.cos(), angles.sin()], dim=1), [2])
    assert scores["recall@1"][2] == 100


def test_a_query_that_is_its_own_answer_finds_itself():
    task = retrieval_from_pairs("copies", [("a", "a"), ("b", "b")])
    scores = task.score(one_hot(task.texts, [0, 1, 0, 1]), [2])
    assert {name: values[2] for name, values in scores.items()} == dict.fromkeys(RANKING, 100.0)


# Retrieval


def test_retrieval_joins_titles_ignores_gains_of_0_and_asks_only_queries_with_judgements(tmp_path):
    qrels = [("q1", "d1", 2), ("q1", "d2", 1), ("q2", "d2", 1), ("q2", "d1", 0), ("d3", "d1", 0)]
    task = retrieval_task("beir", beir(tmp_path, CORPUS, QUERIES, qrels))
    queries, corpus = task.texts[:2], task.texts[2:]
    assert queries == task.evaluated == ["who sleeps", "who runs"]
    assert corpus == ["Cats They sleep.", "Dogs run.", "Fish swim.", "Birds fly."]
    # both queries rank d1, d2, d3, 4
    slope = torch.tensor([0.0, 0.0, 0.1, 0.2, 0.3, 0.4])
    scores = task.score(torch.stack([slope.cos(), slope.sin()], dim=1), [2])
    assert scores["recall@1"][2] == pytest.approx(100 * (1 / 2 + 0) / 2)
    assert scores["mrr@10"][2] == pytest.approx(100 * (1 + 1 / 2) / 2)
    assert scores["ndcg@10"][2] == pytest.approx(100 * (1 + 1 / math.log2(3)) / 2)


def test_retrieval_takes_graded_gains_linearly(tmp_path):
    qrels = [("q1", "d1", 1), ("q1", "d2", 3)]
    task = retrieval_task("beir", beir(tmp_path, CORPUS, QUERIES, qrels))
    slope = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])
    scores = task.score(torch.stack([slope.cos(), slope.sin()], dim=1), [2])["ndcg@10"][2]
    third = 1 / math.log2(3)
    assert scores == pytest.approx(100 * (1 + 3 * third) / (3 + third))


@pytest.mark.parametrize("key", [4, "4"])
def test_a_query_with_a_documents_id_and_text_passes_that_document_over(tmp_path, key):
    """By the id alone it may be another one: Cranfield's queries are numbered as its documents."""
    for text, found_first in (("Birds fly.", 100), ("who flies", 0)):
        task = retrieval_task("beir", beir(tmp_path, CORPUS, [(key, text)], [(key, "d1", 1)]))
        nearest_itself = one_hot(task.texts, [0, 1, 2, 3, 0])
        nearest_itself[0, 1] = 0.1  # then d1
        assert task.score(nearest_itself, [4])["recall@1"][4] == found_first


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (("q9", "d1", 1), "qrels.jsonl: row 2: query 'q9' is not in the files beside it; remove"),
        (("q1", "d9", 1), "qrels.jsonl: row 2: document 'd9' is not in the files beside it"),
        (("q1", "d9", 0), "row 2: document 'd9'"),
        (("q1", "d2", "yes"), "row 2: column 'score' is 'yes', not a number"),
    ],
    ids=str,
)
def test_a_relevance_judgement_that_cannot_be_is_refused_with_its_row(tmp_path, bad, says):
    with pytest.raises(InputError, match=says):
        retrieval_task("beir", beir(tmp_path, CORPUS, QUERIES, [("q1", "d1", 1), bad]))


def test_judgements_of_nothing_but_0_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"qrels.jsonl: no row with a score above 0"):
        retrieval_task("beir", beir(tmp_path, CORPUS, QUERIES, [("q1", "d1", 0)]))


@pytest.mark.parametrize(("text", "whole"), [("", "Fish"), (None, "Fish"), (" ", "Fish")])
def test_a_document_without_text_stays_in_the_corpus(tmp_path, text, whole):
    corpus = [*CORPUS[:2], {"_id": "d3", "title": "Fish", "text": text}, {"_id": "d5", "text": ""}]
    task = retrieval_task("beir", beir(tmp_path, corpus, QUERIES, [("q1", "d1", 1)]))
    assert task.texts[3:] == [whole, ""]


@pytest.mark.parametrize("column", ["title", "text"])
@pytest.mark.parametrize("value", [7, ["Fish"], "\ud800"])
def test_a_document_that_is_no_text_is_refused_with_its_row(tmp_path, column, value):
    corpus = [*CORPUS[:2], {"_id": "d3", "text": "Fish", column: value}]
    with pytest.raises(InputError, match=rf"corpus.jsonl: row 3: column '{column}' is .*not text"):
        retrieval_task("beir", beir(tmp_path, corpus, QUERIES, [("q1", "d1", 1)]))


@pytest.mark.skipif(not SCIFACT.is_dir(), reason=f"no {SCIFACT}")
def test_scifact_is_read_whole():
    names = ("corpus", "queries_test", "qrels_test")
    files = RetrievalFiles(*(str(SCIFACT / f"{name}.jsonl.gz") for name in names))
    assert len(retrieval_task("scifact", files).texts) == 5183 + 300


# All of them


def test_perfect_embeddings_score_100_at_every_width(tmp_path):
    qrels = [("q1", "d1", 2), ("q2", "d2", 1), (4, "d1", 1)]
    texts = beir(tmp_path, CORPUS, QUERIES, qrels)
    pairs = as_source(tmp_path, [("who", "x"), ("what", "y")], ["query", "answer"])
    for task, places in [
        (retrieval_task("beir", texts), [0, 1, 0, 0, 1, 2, 3]),
        (pairs_task("pairs", pairs), [0, 1, 0, 1]),
    ]:
        perfect = one_hot(task.texts, places)
        perfect[:, 1] *= 2
        nested = torch.cat([perfect, gaussian(len(perfect), 1) * 1e-3], dim=1)
        dims = [perfect.shape[1], nested.shape[1]]
        scores = task.score(nested, dims)
        assert scores == {name: dict.fromkeys(dims, pytest.approx(100)) for name in RANKING}
        assert task.score(nested, dims) == scores


def test_a_config_builds_its_tasks_in_order(tmp_path, sts_file, pairs_file):
    config = TasksConfig(
        sts={"sts": Source(str(sts_file), ["sentence1", "sentence2", "score"])},
        pairs={"found": Source(str(pairs_file), ["anchor", "positive"], limit=10)},
        retrieval={"beir": beir(tmp_path, CORPUS, QUERIES, [("q1", "d1", 1)])},
    )
    assert [task.name for task in build_tasks(config)] == ["sts", "found", "beir"]
    assert len(build_tasks(config)[1].texts) == 20


def test_unique_keeps_the_order_of_first_appearance():
    assert unique(["b", "a", "b", "c", "a"]) == (["b", "a", "c"], [0, 1, 0, 2, 1])
    assert unique([]) == ([], [])
