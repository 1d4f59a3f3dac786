"""Scores against labels equal confusion matrices, rankings and entropies counted by hand."""

import itertools
import math
import random
import warnings
from collections import Counter

import pytest
import torch
from references import gaussian
from torch.nn.functional import cosine_similarity, one_hot

from mic.errors import InputError
from mic.metrics.classification import (
    LabelledPairs,
    best_threshold,
    nested_average_precision,
    nested_classification,
    nested_pair_accuracy,
    nested_v_measure,
)

FULL = 6
DIMS = [2, 3, 5, FULL]


def drawn(count, classes, seed=0):
    return [random.Random(seed * 1000 + index).randrange(classes) for index in range(count)]


def clouds(labels, spread, seed=0, far=4.0):
    """Points around a corner of a simplex for each label, in FULL dimensions."""
    corners = far * torch.eye(FULL, dtype=torch.float64)
    return corners[labels] + spread * gaussian(len(labels), FULL, seed=seed)


def judged(count, seed=0, noise=1.0):
    """Pairs whose matches are nearer than the others on average."""
    labels = drawn(count, 2, seed)
    left, other = gaussian(count, FULL, seed=seed), gaussian(count, FULL, seed=seed + 1)
    near = torch.tensor(labels, dtype=torch.float64)[:, None]
    return LabelledPairs(left, near * left + noise * other, labels)


def cut(pairs, d):
    return LabelledPairs(pairs.left[:, :d], pairs.right[:, :d], pairs.labels)


# Classification


def counted(truth, answers):
    """Accuracy and macro-F1, times 100, from a confusion matrix filled in a loop."""
    classes = sorted({*truth, *answers})
    confusion = dict.fromkeys(itertools.product(classes, classes), 0)
    for pair in zip(truth, answers, strict=True):
        confusion[pair] += 1
    scores = []
    for label in classes:
        right = confusion[label, label]
        precise = sum(confusion[other, label] for other in classes)
        recalled = sum(confusion[label, other] for other in classes)
        precision = right / precise if precise else 0.0
        recall = right / recalled if recalled else 0.0
        scores.append(2 * precision * recall / (precision + recall) if right else 0.0)
    accuracy = sum(confusion[label, label] for label in classes) / len(truth)
    return {"accuracy": 100 * accuracy, "macro_f1": 100 * sum(scores) / len(scores)}


def fitted(train, labels, test):
    """Answers of a softmax regression with the penalty |W|^2 / 2, descended in full precision."""
    target = one_hot(torch.tensor(labels)).double()
    weights = torch.zeros(target.shape[1], train.shape[1], dtype=torch.float64)
    biases = torch.zeros(target.shape[1], dtype=torch.float64)
    for _ in range(3000):
        errors = (train @ weights.T + biases).softmax(1) - target
        weights -= 0.002 * (errors.T @ train + weights)
        biases -= 0.002 * errors.sum(0)
    return (test @ weights.T + biases).argmax(1).tolist()


def test_classification_is_counted_from_the_answers_of_a_softmax_regression():
    labels, truth = drawn(90, 3), drawn(60, 3, seed=1)
    train, test = clouds(labels, 2.0), clouds(truth, 2.0, seed=1)
    actual = nested_classification(train, labels, test, truth, DIMS)
    assert list(actual) == ["accuracy", "macro_f1"]
    for d in DIMS:
        expected = counted(truth, fitted(train[:, :d], labels, test[:, :d]))
        assert {name: values[d] for name, values in actual.items()} == pytest.approx(expected)
    assert 50 < actual["accuracy"][2] < 100


def test_classification_scores_the_answers_that_can_be_seen():
    labels = [0, 1, 2] * 4
    truth = [0, 0, 0, 1, 1, 2, 2, 2]
    taken = [0, 0, 1, 1, 2, 2, 2, 0]  # where the test points lie
    actual = nested_classification(
        clouds(labels, 0.1), labels, clouds(taken, 0.1, seed=1), truth, [3, FULL]
    )
    expected = counted(truth, taken)
    assert expected["accuracy"] == 62.5
    assert expected["macro_f1"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 2 / 3) / 3)
    assert actual == {
        name: {3: pytest.approx(v), 6: pytest.approx(v)} for name, v in expected.items()
    }


def test_a_label_that_training_never_has_is_a_wrong_answer_and_a_class_of_f1_0():
    labels, truth, taken = [0, 1] * 4, [0, 0, 1, 2], [0, 0, 1, 1]
    actual = nested_classification(
        clouds(labels, 0.1), labels, clouds(taken, 0.1, seed=1), truth, [FULL]
    )
    assert actual["accuracy"][FULL] == 75
    assert actual["macro_f1"][FULL] == pytest.approx(100 * (1 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classification_of_a_leading_block_is_that_of_the_truncated_matrix(dtype):
    labels, truth = drawn(60, 4), drawn(40, 4, seed=1)
    train, test = clouds(labels, 2.0).to(dtype), clouds(truth, 2.0, seed=1).to(dtype)
    actual = nested_classification(train, labels, test, truth, DIMS)
    for d in DIMS:
        alone = nested_classification(train[:, :d].clone(), labels, test[:, :d].clone(), truth, [d])
        assert {name: values[d] for name, values in actual.items()} == {
            name: values[d] for name, values in alone.items()
        }


def test_classification_sees_lengths():
    labels = [0, 1] * 20
    lengths = torch.tensor([1.0, 9.0])[labels][:, None]
    rows = lengths * torch.nn.functional.normalize(1 + 0.01 * gaussian(40, FULL).float())
    actual = nested_classification(rows, labels, rows, labels, DIMS)
    assert actual["accuracy"] == dict.fromkeys(DIMS, 100.0)


def test_a_regression_that_has_not_converged_is_scored_in_silence():
    labels = drawn(60, 3)
    rows = clouds(labels, 3.0) * torch.logspace(0, 6, FULL, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = nested_classification(rows, labels, rows, labels, [FULL])
    assert actual["accuracy"][FULL] > 50


# Pairs


def precisions(cosines, labels):
    """Average precision: recall gained at each threshold times the precision there."""
    total, before, score = sum(labels), 0, 0.0
    for threshold in sorted(set(cosines), reverse=True):
        called = [
            label for cosine, label in zip(cosines, labels, strict=True) if cosine >= threshold
        ]
        score += (sum(called) - before) / total * sum(called) / len(called)
        before = sum(called)
    return 100 * score


def accuracy(cosines, labels, threshold):
    right = [(c >= threshold) == bool(label) for c, label in zip(cosines, labels, strict=True)]
    return 100 * sum(right) / len(right)


def tried(cosines, labels):
    """The highest of the best thresholds among every one that can make a difference."""
    seen = sorted(set(cosines))
    middles = [(low + high) / 2 for low, high in itertools.pairwise(seen)]
    every = [math.inf, *reversed(middles), -math.inf]
    return max(every, key=lambda threshold: accuracy(cosines, labels, threshold))


def slow_cosines(pairs, d):
    return cosine_similarity(pairs.left[:, :d].double(), pairs.right[:, :d].double()).tolist()


@pytest.mark.parametrize("noise", [0.5, 1.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_average_precision_equals_its_definition(noise, dtype):
    pairs = judged(70, noise=noise)
    pairs = LabelledPairs(pairs.left.to(dtype), pairs.right.to(dtype), pairs.labels)
    actual = nested_average_precision(pairs, DIMS)
    assert list(actual) == DIMS
    for d in DIMS:
        assert actual[d] == pytest.approx(precisions(slow_cosines(pairs, d), pairs.labels))


def test_average_precision_of_tied_pairs_does_not_depend_on_their_order():
    angles = torch.tensor([0.1, 0.1, 0.1, 0.5, 0.5, 1.0], dtype=torch.float64)
    left = torch.tensor([[1.0, 0.0]]).double().expand(6, 2)
    right = torch.stack([angles.cos(), angles.sin()], dim=1)
    for labels in ([1, 0, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0]):
        actual = nested_average_precision(LabelledPairs(left, right, labels), [2])[2]
        assert actual == pytest.approx(100 * (1 / 3 + 2 / 5) / 2)


@pytest.mark.parametrize("seed", range(4))
def test_accuracy_is_that_of_the_threshold_found_by_trying_every_one(seed):
    test, tune = judged(60, seed), judged(50, seed + 10)
    actual = nested_pair_accuracy(test, tune, DIMS)
    assert list(actual) == DIMS
    for d in DIMS:
        threshold = tried(slow_cosines(tune, d), tune.labels)
        assert actual[d] == pytest.approx(accuracy(slow_cosines(test, d), test.labels, threshold))


@pytest.mark.parametrize(
    ("cosines", "labels"),
    [
        ([0.9, 0.5, 0.2], [1, 1, 0]),
        ([0.9, 0.9, 0.9, 0.1], [1, 0, 1, 0]),  # ties cannot be parted
        ([0.5, 0.5], [1, 0]),
        ([0.9, 0.8, 0.7], [0, 1, 0]),  # two are as good: the higher
        ([0.9, 0.1], [0, 1]),  # nothing is a match
        ([0.9, 0.5, 0.1], [0, 1, 1]),  # everything is
    ],
)
def test_the_threshold_is_the_highest_of_the_best(cosines, labels):
    expected = tried(cosines, labels)
    assert best_threshold(torch.tensor(cosines, dtype=torch.float64), labels) == expected


def test_test_pairs_never_move_the_threshold():
    test, tune = judged(60), judged(50, seed=10)
    flipped = LabelledPairs(test.left, test.right, [1 - label for label in test.labels])
    actual = nested_pair_accuracy(test, tune, DIMS)
    other = nested_pair_accuracy(flipped, tune, DIMS)
    assert other == {d: pytest.approx(100 - actual[d]) for d in DIMS}


def test_a_threshold_tuned_on_the_test_pairs_scores_at_least_as_high():
    test = judged(60)
    best = nested_pair_accuracy(test, test, DIMS)
    for seed in range(10, 15):
        honest = nested_pair_accuracy(test, judged(50, seed), DIMS)
        assert all(honest[d] <= best[d] for d in DIMS)


def test_pairs_of_a_leading_block_score_as_those_of_the_truncated_matrices():
    test, tune = judged(60), judged(50, seed=10)
    precision = nested_average_precision(test, DIMS)
    tuned = nested_pair_accuracy(test, tune, DIMS)
    for d in DIMS:
        assert precision[d] == pytest.approx(nested_average_precision(cut(test, d), [d])[d])
        assert tuned[d] == pytest.approx(nested_pair_accuracy(cut(test, d), cut(tune, d), [d])[d])


# Clustering


def v_measure(labels, groups):
    """The harmonic mean of homogeneity and completeness, from entropies in bits."""

    def entropy(values):
        return -sum(n / len(values) * math.log2(n / len(values)) for n in Counter(values).values())

    joint = entropy(list(zip(labels, groups, strict=True)))
    homogeneity = 1 - (joint - entropy(groups)) / entropy(labels)
    completeness = 1 - (joint - entropy(labels)) / entropy(groups)
    return 100 * 2 * homogeneity * completeness / (homogeneity + completeness)


def test_v_measure_of_groups_that_can_be_seen_follows_from_their_entropies():
    groups = drawn(60, 3)
    labels = [group if index % 5 else (group + 1) % 3 for index, group in enumerate(groups)]
    rows = clouds(groups, 0.1)
    actual = nested_v_measure(rows, labels, [3, FULL])
    assert actual == dict.fromkeys([3, FULL], pytest.approx(v_measure(labels, groups)))
    assert 20 < actual[FULL] < 80
    assert nested_v_measure(rows, groups, [FULL])[FULL] == pytest.approx(100)


def test_v_measure_ignores_lengths_and_the_names_of_labels():
    labels = drawn(60, 3)
    rows = clouds(labels, 0.5)
    scaled = rows * gaussian(60, 1, seed=4).exp()
    renamed = [7 - label for label in labels]
    actual = nested_v_measure(rows, labels, DIMS)
    assert nested_v_measure(scaled, labels, DIMS) == pytest.approx(actual)
    assert nested_v_measure(rows, renamed, DIMS) == pytest.approx(actual)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_v_measure_of_a_leading_block_is_that_of_the_truncated_matrix(dtype):
    labels = drawn(80, 4)
    rows = clouds(labels, 2.0).to(dtype)
    actual = nested_v_measure(rows, labels, DIMS)
    assert actual == {d: nested_v_measure(rows[:, :d].clone(), labels, [d])[d] for d in DIMS}


def test_fewer_distinct_points_than_labels_are_grouped_in_silence():
    rows = torch.eye(FULL)[[0, 0, 1, 1, 0, 1]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = nested_v_measure(rows, [0, 1, 2, 2, 0, 2], [FULL])
    assert actual[FULL] == pytest.approx(v_measure([0, 1, 2, 2, 0, 2], [0, 0, 1, 1, 0, 1]))


# All of them


@pytest.mark.parametrize("dims", [[3, 2], [FULL + 1], []], ids=str)
def test_impossible_widths_are_refused(dims):
    pairs, labels = judged(8), [0, 1] * 4
    for score in (
        lambda: nested_classification(pairs.left, labels, pairs.right, labels, dims),
        lambda: nested_average_precision(pairs, dims),
        lambda: nested_pair_accuracy(pairs, pairs, dims),
        lambda: nested_v_measure(pairs.left, labels, dims),
    ):
        with pytest.raises(InputError, match="dims"):
            score()
