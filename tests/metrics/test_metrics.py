"""Quality at every width equals scipy's, torchmetrics' and slow loops' on the truncated vectors."""

import math
import random

import pytest
import pytrec_eval
import torch
from references import gaussian
from scipy.stats import spearmanr
from torch.nn.functional import cosine_similarity
from torchmetrics.functional.retrieval import (
    retrieval_normalized_dcg,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from mic.errors import InputError
from mic.metrics import (
    NestedRetrieval,
    NestedSpearman,
    nested_retrieval,
    nested_spearman,
    retrieval,
)
from mic.metrics.retrieval import BLOCK

FULL = 6
DIMS = [2, 3, 5, FULL]  # at width 1 all cosines are 1 or -1: nothing but ties
NAMES = ["recall@1", "recall@10", "recall@100", "mrr@10", "ndcg@10", "map@100"]
SIZES = {"below 10": (9, 7), "below 100": (9, 60), "above 100": (BLOCK + 30, 130)}

every_size = pytest.mark.parametrize(("queries", "documents"), SIZES.values(), ids=SIZES)


def world(queries, documents, excluded=True):
    """Embeddings, graded judgements of 1 to 12 documents a query, and the queries' own rows."""
    chance = random.Random(0)
    relevant, passed = [], []
    for _ in range(queries):
        shuffled = chance.sample(range(documents), documents)
        count = chance.randint(1, min(12, documents - 1))
        relevant.append({index: float(chance.randint(1, 4)) for index in shuffled[:count]})
        # the document passed over: none, or one that is not relevant
        passed.append(shuffled[-1] if excluded and chance.random() < 0.7 else None)
    return gaussian(queries, FULL), gaussian(documents, FULL, seed=1), relevant, passed


def slow_ranking(query, corpus, excluded):
    """The documents by falling cosine, but for the query's own, in Python floats."""

    def cosine(document):
        dot = sum(x * y for x, y in zip(query, document, strict=True))
        return dot / math.hypot(*query) / math.hypot(*document)

    others = [index for index in range(len(corpus)) if index != excluded]
    return sorted(others, key=lambda index: -cosine(corpus[index]))


def slow_metrics(ranking, gains):
    """trec_eval's: recall over all the relevant, nDCG with linear gains."""
    recalls = [sum(index in gains for index in ranking[:k]) / len(gains) for k in (1, 10, 100)]
    reciprocal = next(
        (1 / rank for rank, index in enumerate(ranking[:10], 1) if index in gains), 0.0
    )
    ideal = sorted(gains.values(), reverse=True)

    def discounted(values):
        return sum(value / math.log2(rank + 1) for rank, value in enumerate(values[:10], 1))

    places = [rank for rank, index in enumerate(ranking[:100], 1) if index in gains]
    return [
        *recalls,
        reciprocal,
        discounted([gains.get(index, 0) for index in ranking]) / discounted(ideal),
        sum(actual / rank for actual, rank in enumerate(places, 1)) / len(gains),
    ]


def torchmetrics_of(query, corpus, excluded, gains):
    """All but MAP, which torchmetrics divides by what was found; its nDCG takes gains linearly."""
    retained = [index for index in range(len(corpus)) if index != excluded]
    scores = cosine_similarity(query[None], corpus[retained])
    scores = scores + 2  # torchmetrics counts a document with a score of 0 or less as not found
    graded = torch.tensor([int(gains.get(index, 0)) for index in retained])
    return [
        *(retrieval_recall(scores, graded > 0, top_k=k).item() for k in (1, 10, 100)),
        retrieval_reciprocal_rank(scores, graded > 0, top_k=10).item(),
        retrieval_normalized_dcg(scores, graded, top_k=10).item(),
    ]


def trec_eval_of(queries, corpus, relevant, excluded):
    """The same six of trec_eval, averaged over queries."""
    names = ("recall_1", "recall_10", "recall_100", "recip_rank", "ndcg_cut_10", "map_cut_100")
    judged = {
        f"q{i}": {f"d{index}": int(gain) for index, gain in gains.items()}
        for i, gains in enumerate(relevant)
    }
    run = {
        f"q{i}": {
            f"d{index}": float(score)
            for index, score in enumerate(cosine_similarity(query[None], corpus))
            if index != excluded[i]
        }
        for i, query in enumerate(queries)
    }
    actual = pytrec_eval.RelevanceEvaluator(
        judged, {"recall.1,10,100", "recip_rank", "ndcg_cut.10", "map_cut.100"}
    ).evaluate(run)
    for query, values in actual.items():  # trec_eval knows no reciprocal rank cut at 10
        if values["recip_rank"] < 1 / 10:
            actual[query]["recip_rank"] = 0.0
    return [[values[name] for name in names] for values in actual.values()]


def assert_averages(actual, rows, d, abs):
    expected = [100 * sum(column) / len(rows) for column in zip(*rows, strict=True)]
    assert [values[d] for values in actual.values()] == pytest.approx(expected, abs=abs)


# Retrieval


@every_size
def test_retrieval_equals_loops_over_queries_and_documents(queries, documents):
    q, c, relevant, excluded = world(queries, documents)
    actual = nested_retrieval(q, c, relevant, DIMS, excluded)
    assert list(actual) == NAMES
    for d in DIMS:
        short_q, short_c = q[:, :d].tolist(), c[:, :d].tolist()
        rows = [
            slow_metrics(slow_ranking(query, short_c, index), gains)
            for query, index, gains in zip(short_q, excluded, relevant, strict=True)
        ]
        assert_averages(actual, rows, d, abs=1e-9)


@every_size
def test_retrieval_equals_torchmetrics(queries, documents):
    q, c, relevant, excluded = world(queries, documents)
    actual = nested_retrieval(q, c, relevant, DIMS, excluded)
    del actual["map@100"]
    for d in DIMS:
        rows = [
            torchmetrics_of(query, c[:, :d], index, gains)
            for query, index, gains in zip(q[:, :d], excluded, relevant, strict=True)
        ]
        assert_averages(actual, rows, d, abs=1e-4)


@every_size
def test_retrieval_equals_trec_eval(queries, documents):
    q, c, relevant, excluded = world(queries, documents)
    actual = nested_retrieval(q, c, relevant, DIMS, excluded)
    for d in DIMS:
        assert_averages(actual, trec_eval_of(q[:, :d], c[:, :d], relevant, excluded), d, abs=1e-6)


@every_size
def test_a_corpus_in_parts_of_any_order_is_the_corpus(queries, documents, monkeypatch):
    q, c, relevant, excluded = world(queries, documents)
    whole = nested_retrieval(q, c, relevant, DIMS, excluded)
    monkeypatch.setattr(retrieval, "CHUNK", 11)
    metric = NestedRetrieval(q, relevant, DIMS, excluded)
    for part in torch.randperm(documents, generator=torch.manual_seed(3)).split(29):
        metric.update(c[part], part)
    actual = metric.compute()
    for name in NAMES:
        assert actual[name] == pytest.approx(whole[name], abs=1e-9)
    metric.reset()
    metric.update(c, torch.arange(documents))
    assert metric.compute() == whole


def test_equal_documents_stand_in_the_order_of_their_numbers(monkeypatch):
    monkeypatch.setattr(retrieval, "CHUNK", 7)
    directions = torch.eye(3, dtype=torch.double)  # whose cosines have no rounding
    corpus = directions[torch.arange(60) % 3]
    relevant = [{51 + i: 2.0, 9 + i: 1.0, 10 + i: 3.0} for i in range(3)]
    rows = [
        slow_metrics(slow_ranking(query, corpus.tolist(), None), gains)
        for query, gains in zip(directions.tolist(), relevant, strict=True)
    ]
    metric = NestedRetrieval(directions, relevant, [3])
    for part in torch.randperm(60, generator=torch.manual_seed(3)).split(29):
        metric.update(corpus[part], part)
    assert_averages(metric.compute(), rows, 3, abs=1e-9)


def test_what_is_not_a_number_is_never_found():
    q, c, relevant, excluded = world(*SIZES["above 100"])
    broken = torch.cat([torch.full((3, FULL), math.nan).double(), c])
    moved = [{index + 3: gain for index, gain in gains.items()} for gains in relevant]
    passed = [None if index is None else index + 3 for index in excluded]
    # the places before the hundredth are enough: three are taken from those after it
    names = [name for name in NAMES if "100" not in name]
    expected = nested_retrieval(q, c, relevant, DIMS, excluded)
    actual = nested_retrieval(q, broken, moved, DIMS, passed)
    assert {name: actual[name] for name in names} == {name: expected[name] for name in names}
    nothing = nested_retrieval(q * math.nan, c, relevant, DIMS, excluded)
    assert nothing == {name: dict.fromkeys(DIMS, 0.0) for name in NAMES}


def test_documents_may_come_in_another_precision_than_the_queries():
    q, c, relevant, excluded = world(*SIZES["below 100"])
    expected = nested_retrieval(q.half().float(), c.half().float(), relevant, DIMS, excluded)
    assert nested_retrieval(q.half(), c.half(), relevant, DIMS, excluded) == expected
    assert nested_retrieval(q.half(), c.half().double(), relevant, DIMS, excluded) == expected


def test_a_difference_that_only_double_precision_sees_decides():
    query = torch.tensor([[1.0, 0.0]], dtype=torch.double)
    corpus = torch.tensor([[1.0, 2.0], [1.0, 2.0 - 1e-9]], dtype=torch.double)
    assert nested_retrieval(query, corpus, [{1: 1.0}], [2])["recall@1"] == {2: 100.0}


def test_the_query_itself_takes_none_of_the_hundred_places():
    angles = torch.arange(130) * torch.pi / 130
    corpus = torch.stack([angles.cos(), angles.sin()], dim=1)
    actual = nested_retrieval(corpus[:1], corpus, [{100: 1.0}], [2], [0])
    assert actual["recall@100"] == {2: 100.0}
    assert actual["map@100"] == {2: pytest.approx(1.0)}
    assert nested_retrieval(corpus[:1], corpus, [{101: 1.0}], [2], [0])["recall@100"] == {2: 0.0}


def test_spearman_of_pairs_in_batches_is_that_of_all():
    a, b = gaussian(40, FULL), gaussian(40, FULL, seed=1)
    scores = [float(n % 7) for n in range(40)]
    metric = NestedSpearman(DIMS)
    for part in torch.arange(40).split(13):
        metric.update(a[part], b[part], torch.tensor(scores)[part])
    assert metric.compute() == pytest.approx(nested_spearman(a, b, scores, DIMS), abs=1e-9)
    metric.reset()
    metric.update(a[:9], b[:9], torch.tensor(scores)[:9])
    expected = nested_spearman(a[:9], b[:9], scores[:9], DIMS)
    assert metric.compute() == pytest.approx(expected, abs=1e-9)
    with pytest.raises(InputError, match="dims"):
        metric.update(a[:, :3], b[:, :3], torch.tensor(scores))


@every_size
def test_retrieval_of_a_leading_block_is_that_of_the_truncated_matrix(queries, documents):
    q, c, relevant, excluded = world(queries, documents)
    nested = nested_retrieval(q, c, relevant, DIMS, excluded)
    for d in DIMS:
        alone = nested_retrieval(q[:, :d], c[:, :d], relevant, [d], excluded)
        assert {name: values[d] for name, values in nested.items()} == pytest.approx(
            {name: values[d] for name, values in alone.items()}, abs=1e-9
        )


def test_retrieval_in_single_precision_ignores_lengths():
    q, c, relevant, excluded = world(*SIZES["below 100"])
    plain = nested_retrieval(q.float(), c.float(), relevant, DIMS, excluded)
    scaled = nested_retrieval(
        q.float() * 3,
        c.float() * gaussian(len(c), 1, seed=4).exp().float(),
        relevant,
        DIMS,
        excluded,
    )
    assert plain == scaled == nested_retrieval(q, c, relevant, DIMS, excluded)


@pytest.mark.parametrize("excluded", [None, [None] * 9])
def test_without_own_documents_nothing_is_passed_over(excluded):
    q, c, relevant, nothing = world(*SIZES["below 100"], excluded=False)
    assert set(nothing) == {None}
    expected = nested_retrieval(q, c, relevant, DIMS, nothing)
    assert nested_retrieval(q, c, relevant, DIMS, excluded) == expected


def test_a_query_in_the_corpus_finds_itself_unless_it_is_passed_over():
    rows = torch.eye(4) + 0.1
    relevant = [{(i + 1) % 4: 1.0} for i in range(4)]
    rows[:, 3] += torch.tensor([0.0, 0.2, 0.4, 0.6])
    assert nested_retrieval(rows, rows, relevant, [4])["recall@1"] == {4: 0.0}
    passed = nested_retrieval(rows, rows, relevant, [4], [0, 1, 2, 3])["recall@1"]
    assert passed[4] > 0


def test_a_document_that_is_passed_over_is_never_found_though_it_is_judged_relevant():
    q, c, relevant, excluded = world(*SIZES["below 100"])
    for gains, index in zip(relevant, excluded, strict=True):
        gains |= {} if index is None else {index: 4.0}
    actual = nested_retrieval(q, c, relevant, [FULL], excluded)
    rows = [
        slow_metrics(slow_ranking(query, c.tolist(), index), gains)
        for query, index, gains in zip(q.tolist(), excluded, relevant, strict=True)
    ]
    assert_averages(actual, rows, FULL, abs=1e-9)
    assert actual["recall@100"][FULL] < 100


@pytest.mark.parametrize(("documents", "hundred"), [(12, True), (120, False)])
def test_the_best_and_the_worst_ranking_score_100_and_0(documents, hundred):
    angles = torch.arange(documents) * torch.pi / documents
    corpus = torch.stack([angles.cos(), angles.sin()], dim=1)  # ever farther from the query
    best = nested_retrieval(corpus[:1], corpus, [{0: 3.0, 1: 2.0}], [2])
    assert {name: values[2] for name, values in best.items()} == pytest.approx(
        {name: 50.0 if name == "recall@1" else 100.0 for name in NAMES}
    )
    worst = nested_retrieval(corpus[:1], corpus, [{documents - 1: 1.0}], [2])
    assert {name for name, values in worst.items() if values[2]} == (
        {"recall@100", "map@100"} if hundred else set()
    )


@pytest.mark.parametrize("dims", [[3, 2], [FULL + 1], []], ids=str)
def test_impossible_widths_are_refused(dims):
    q, c, relevant, _ = world(*SIZES["below 10"])
    with pytest.raises(InputError, match="dims"):
        nested_retrieval(q, c, relevant, dims)
    with pytest.raises(InputError, match="dims"):
        nested_spearman(c, c, range(len(c)), dims)


# Similarity


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spearman_equals_scipys_on_the_truncated_vectors(dtype):
    a, b = gaussian(50, FULL).to(dtype), gaussian(50, FULL, seed=1).to(dtype)
    scores = [round(score, 1) for score in gaussian(50, seed=2).tolist()]  # with ties
    actual = nested_spearman(a, b, scores, [1, *DIMS])
    assert list(actual) == [1, *DIMS]
    for d in DIMS:
        cosine = cosine_similarity(a[:, :d].double(), b[:, :d].double())
        expected = 100 * spearmanr(cosine.numpy(), scores).statistic
        assert actual[d] == pytest.approx(expected, abs=1e-9)


def test_spearman_is_100_for_any_increasing_function_of_the_cosine_and_minus_100_for_a_decreasing():
    a, b = gaussian(20, FULL), gaussian(20, FULL, seed=1)
    cosine = cosine_similarity(a, b)
    up, down = cosine.exp().tolist(), (-cosine.pow(3)).tolist()
    assert nested_spearman(a, b, up, [FULL])[FULL] == pytest.approx(100)
    assert nested_spearman(a, b, down, [FULL])[FULL] == pytest.approx(-100)


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_spearman_with_a_constant_or_without_pairs_is_not_a_number():
    a, b = gaussian(5, FULL), gaussian(5, FULL, seed=1)
    assert math.isnan(nested_spearman(a, b, [1.0] * 5, [FULL])[FULL])
    assert math.isnan(nested_spearman(a.abs(), b.abs(), range(5), [1])[1])
    assert math.isnan(nested_spearman(a[:1], b[:1], [1.0], [FULL])[FULL])
    assert math.isnan(nested_spearman(a[:0], b[:0], [], [FULL])[FULL])
