"""The paired bootstrap is that of scikit-learn and SciPy on rows written out as often as drawn."""

import itertools
import math

import numpy as np
import pytest
import torch
from references import gaussian
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, average_precision_score

from mic.metrics import bootstrap
from mic.metrics.bootstrap import (
    Items,
    bootstrap_scores,
    draw_counts,
    holm,
    resampled_scores,
    score_difference,
)

SLOW = {
    "accuracy": accuracy_score,
    "spearman": lambda truth, actual: spearmanr(truth, actual).statistic,
    "ap": average_precision_score,
}


def answered(statistic, seed=0, count=40):
    """Items with ties in truth and answers; the wider answers are nearer to the truth."""
    noise = [gaussian(count, 1, seed=seed + k)[:, 0] for k in range(3)]
    truth = (2 * noise[0]).round() if statistic == "spearman" else (noise[0] > 0).double()
    actual = {d: truth + scale * noise[k] for k, d, scale in ((1, 4, 2.0), (2, 8, 0.7))}
    rounded = {
        d: (x > 0.5).double() if statistic == "accuracy" else (4 * x).round() / 4
        for d, x in actual.items()
    }
    return Items(statistic, truth, rounded)


def written_out(items, dim, counts):
    """The score of every draw, from its rows one by one."""
    scores = []
    for row in counts:
        chosen = np.repeat(np.arange(len(row)), row.astype(int))
        scores.append(100 * SLOW[items.statistic](items.truth[chosen], items.answers[dim][chosen]))
    return np.array(scores)


@pytest.mark.parametrize("statistic", SLOW)
def test_a_score_of_drawn_items_is_that_of_their_rows(statistic):
    items = answered(statistic)
    counts = next(draw_counts("task", 40))
    for dim in (4, 8):
        actual = resampled_scores(items, dim, counts)
        np.testing.assert_allclose(actual, written_out(items, dim, counts), rtol=1e-12)
        assert 1 < actual.std() < 20


@pytest.mark.parametrize("statistic", SLOW)
def test_a_difference_is_that_of_both_models_on_the_same_draws(statistic, monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWS", 200)
    a, b = (
        answered(statistic, seed=0),
        answered(statistic, seed=0)._replace(answers=answered(statistic, seed=3).answers),
    )
    counts = np.concatenate(list(draw_counts("task", 40)))
    apart = written_out(a, 8, counts) - written_out(b, 8, counts)
    actual = score_difference(
        bootstrap_scores("task", [a], 8), bootstrap_scores("task", [b], 8), 40
    )
    whole = np.ones((1, 40))
    assert actual.value == pytest.approx((written_out(a, 8, whole) - written_out(b, 8, whole))[0])
    assert (actual.low, actual.high) == pytest.approx(np.percentile(apart, [2.5, 97.5]))
    z = abs(actual.value) / apart.std(ddof=1)
    assert actual.p == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert actual.items == 40


def test_of_several_seeds_the_mean_is_taken_on_every_draw():
    seeds = [answered("spearman", seed) for seed in (0, 10, 20)]
    apart = [bootstrap_scores("task", [answers], 4) for answers in seeds]
    np.testing.assert_allclose(bootstrap_scores("task", seeds, 4), np.mean(apart, axis=0))


def test_draws_are_as_large_as_the_items_and_the_same_at_every_call():
    first, again = (np.concatenate(list(draw_counts("task", 7))) for _ in range(2))
    assert first.shape == (bootstrap.DRAWS, 7)
    assert (first.sum(1) == 7).all()
    assert (first == again).all()
    assert (first != np.concatenate(list(draw_counts("other", 7)))).any()
    assert first.mean() == 1
    assert first.var() == pytest.approx(1 - 1 / 7, rel=0.1)  # a binomial of 7 tries at 1/7


def test_a_model_is_not_better_than_itself():
    items = answered("ap")
    actual = score_difference(
        bootstrap_scores("task", [items], 4), bootstrap_scores("task", [items], 4), 40
    )
    assert (actual.value, actual.low, actual.high, actual.p, actual.apart) == (0, 0, 0, 1, False)


def test_paired_draws_see_what_apart_they_would_not():
    """One model is right wherever the other is, and on a few items more."""
    truth = torch.ones(200)
    worse = (gaussian(200, 1)[:, 0] > 0).double()
    better = worse.clone()
    better[torch.nonzero(worse == 0)[:8, 0]] = 1
    a, b = (
        bootstrap_scores("task", [Items("accuracy", truth, {4: x})], 4) for x in (better, worse)
    )
    assert score_difference(a, b, 200).apart
    assert (
        score_difference(a, b[np.r_[0, 1 + np.random.default_rng(0).permutation(1000)]], 200).low
        < 0
    )


def test_draws_without_a_score_are_passed_over():
    items = Items("ap", torch.tensor([1.0, 0, 0]), {4: torch.tensor([0.9, 0.5, 0.1])})
    actual = bootstrap_scores("task", [items], 4)
    assert 0.2 < np.isnan(actual).mean() < 0.4  # (2/3)^3: the match is in none of three
    worse = bootstrap_scores("task", [items._replace(answers={4: -items.answers[4]})], 4)
    assert score_difference(actual, worse, 3).value == pytest.approx(100 - 100 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_holm_holds_what_every_larger_family_it_stands_in_would(seed):
    """By closed testing: a hypothesis falls if Bonferroni rejects every set that it is part of."""
    p = (0.08 * np.random.default_rng(seed).random(5) ** 2).tolist()

    def falls(index):
        others = [other for other in range(5) if other != index]
        sets = itertools.chain.from_iterable(
            itertools.combinations(others, size) for size in range(5)
        )
        return all(min(p[k] for k in (index, *some)) <= 0.05 / (1 + len(some)) for some in sets)

    assert holm(p) == [falls(index) for index in range(5)]
