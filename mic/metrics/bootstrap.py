"""Bootstrap over test items: scores of resampled items, and paired comparisons of models.

Test items are drawn with replacement, 1,000 times; both models of a comparison answer the same
draws, so that what is hard for both does not count. A score is computed for many draws at once from
how often each holds every item: nothing is fitted, encoded or sorted again. Of several seeds of a
model the mean score is taken on every draw: the seeds stay as they are, so an interval is one over
test items, not over seeds. Scores are times 100.
"""

from collections.abc import Iterator, Sequence
from math import erfc, isfinite, sqrt
from typing import Literal, NamedTuple
from zlib import crc32

import numpy as np
from jaxtyping import Float
from torch import Tensor

DRAWS = 1000
BLOCK = 50  # draws at a time
SEED = 42
LEVEL = 0.95

Statistic = Literal["accuracy", "spearman", "ap"]


class Items(NamedTuple):
    """The truth of every test item and a model's answers at every width.

    Truth and answers are: for accuracy the labels' numbers; for Spearman's correlation the scores
    and the cosines; for average precision 1 for a match, 0 for none, and the cosines.
    """

    statistic: Statistic
    truth: Float[Tensor, " items"]
    answers: dict[int, Float[Tensor, " items"]]


def resampled_scores(
    items: Items, dim: int, counts: Float[np.ndarray, "draws items"]
) -> Float[np.ndarray, " draws"]:
    """The score at a width of every draw; `counts` says how often it holds each item.

    NaN where a draw has no such score: of Spearman's correlation without variation, of average
    precision without a match.
    """
    truth, answers = items.truth.double().numpy(), items.answers[dim].double().numpy()
    statistics = {"accuracy": accuracy, "spearman": spearman, "ap": average_precision}
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * statistics[items.statistic](truth, answers, counts)


def accuracy(
    truth: Float[np.ndarray, " items"],
    answers: Float[np.ndarray, " items"],
    counts: Float[np.ndarray, "draws items"],
) -> Float[np.ndarray, " draws"]:
    share: np.ndarray = counts @ (truth == answers).astype(counts.dtype) / counts.sum(1)
    return share


def spearman(
    truth: Float[np.ndarray, " items"],
    answers: Float[np.ndarray, " items"],
    counts: Float[np.ndarray, "draws items"],
) -> Float[np.ndarray, " draws"]:
    weights = counts / counts.sum(1, keepdims=True)
    x, y = weighted_ranks(truth, counts), weighted_ranks(answers, counts)
    x -= (weights * x).sum(1, keepdims=True)
    y -= (weights * y).sum(1, keepdims=True)
    variances = (weights * x * x).sum(1) * (weights * y * y).sum(1)
    correlation: np.ndarray = (weights * x * y).sum(1) / np.sqrt(variances)
    return correlation


def weighted_ranks(
    values: Float[np.ndarray, " items"], counts: Float[np.ndarray, "draws items"]
) -> Float[np.ndarray, "draws items"]:
    """The rank of each item among those drawn; equal values share the mean of their ranks."""
    order = values.argsort(kind="stable")
    _, starts, group = np.unique(values[order], return_index=True, return_inverse=True)
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)
    middles = drawn.cumsum(1) - (drawn - 1) / 2
    place = np.empty_like(order)
    place[order] = group
    return middles[:, place]


def average_precision(
    truth: Float[np.ndarray, " items"],
    answers: Float[np.ndarray, " items"],
    counts: Float[np.ndarray, "draws items"],
) -> Float[np.ndarray, " draws"]:
    """The mean over matches of the precision among the pairs of at least their cosine."""
    order = (-answers).argsort(kind="stable")
    _, starts = np.unique(-answers[order], return_index=True)
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)
    matches = np.add.reduceat((counts * truth)[:, order], starts, axis=1)
    precision = matches.cumsum(1) / np.maximum(drawn.cumsum(1), 1)
    mean: np.ndarray = (matches * precision).sum(1) / matches.sum(1)
    return mean


class Difference(NamedTuple):
    """How much higher one score is than another, over `items` items, times 100.

    `low` and `high` are the 2.5 and 97.5 % quantiles of the draws' differences; `p` is two-sided,
    of a normal distribution with their standard deviation.
    """

    value: float
    low: float
    high: float
    p: float
    items: int

    @property
    def apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def draw_counts(task: str, items: int) -> Iterator[Float[np.ndarray, "draws items"]]:
    """How often each draw of a task holds each item, some draws at a time; the same at any call."""
    generator = np.random.default_rng([SEED, crc32(task.encode())])
    for _ in range(0, DRAWS, BLOCK):
        chosen = generator.integers(0, items, (BLOCK, items))
        numbered = (chosen + items * np.arange(BLOCK)[:, None]).ravel()
        counts = np.bincount(numbered, minlength=BLOCK * items).reshape(BLOCK, items)
        yield counts.astype(np.double)


def bootstrap_scores(task: str, models: Sequence[Items], dim: int) -> Float[np.ndarray, " samples"]:
    """The mean score of models (one, or its seeds): of the items as given, then of every draw."""
    count = len(models[0].truth)
    blocks = [np.ones((1, count)), *draw_counts(task, count)]
    return np.concatenate(
        [
            np.mean([resampled_scores(items, dim, counts) for items in models], axis=0)
            for counts in blocks
        ]
    )


def score_difference(
    a: Float[np.ndarray, " samples"], b: Float[np.ndarray, " samples"], items: int
) -> Difference:
    """How much higher `a` is than `b`, from what `bootstrap_scores` gave for both."""
    value, drawn = float(a[0] - b[0]), (a - b)[1:]
    drawn = drawn[np.isfinite(drawn)]  # a draw without a match, or without variation, has no score
    if not isfinite(value) or not len(drawn):
        return Difference(value, np.nan, np.nan, 1.0, items)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    spread = float(drawn.std(ddof=1))
    p = erfc(abs(value) / spread / sqrt(2)) if spread else float(value == 0)
    return Difference(value, float(low), float(high), p, items)


def holm(p: Sequence[float], level: float = 1 - LEVEL) -> list[bool]:
    """Which of several comparisons are significant together, by Holm's step-down procedure.

    With a probability of 95 % none of them is due to chance alone, however they depend on each
    other.

    >>> holm([0.001, 0.04, 0.02, 0.5])
    [True, False, False, False]
    """
    significant = [False] * len(p)
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[index] > level / (len(p) - rank):
            break
        significant[index] = True
    return significant
