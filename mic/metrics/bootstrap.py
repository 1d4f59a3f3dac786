"""What a score is made of, item by item, and the same score of items drawn anew.

A bootstrap asks what a score would have been for other test items. `redrawn` answers for many draws
at once, from how often each item was drawn: nothing is fitted, encoded or sorted again. Everything
is times 100, as the scores are.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

Statistic = Literal["accuracy", "spearman", "ap"]


class Items(NamedTuple):
    """The truth of every test item, and what was answered at every width.

    Of accuracy the numbers of the labels; of Spearman's correlation the scores and the cosines; of
    average precision 1 for a match, 0 for none, and the cosines.
    """

    statistic: Statistic
    truth: Float[Tensor, " items"]
    found: dict[int, Float[Tensor, " items"]]


def redrawn(
    items: Items, dim: int, counts: Float[np.ndarray, "draws items"]
) -> Float[np.ndarray, " draws"]:
    """The score at a width of every draw; `counts` says how often it holds each item.

    NaN where a draw has no such score: of Spearman's correlation without variation, of average
    precision without a match.
    """
    truth, found = items.truth.double().numpy(), items.found[dim].double().numpy()
    made = {"accuracy": accuracy, "spearman": spearman, "ap": average_precision}
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * made[items.statistic](truth, found, counts)


def accuracy(
    truth: Float[np.ndarray, " items"],
    found: Float[np.ndarray, " items"],
    counts: Float[np.ndarray, "draws items"],
) -> Float[np.ndarray, " draws"]:
    share: np.ndarray = counts @ (truth == found).astype(counts.dtype) / counts.sum(1)
    return share


def spearman(
    truth: Float[np.ndarray, " items"],
    found: Float[np.ndarray, " items"],
    counts: Float[np.ndarray, "draws items"],
) -> Float[np.ndarray, " draws"]:
    weights = counts / counts.sum(1, keepdims=True)
    x, y = ranks(truth, counts), ranks(found, counts)
    x -= (weights * x).sum(1, keepdims=True)
    y -= (weights * y).sum(1, keepdims=True)
    variances = (weights * x * x).sum(1) * (weights * y * y).sum(1)
    correlation: np.ndarray = (weights * x * y).sum(1) / np.sqrt(variances)
    return correlation


def ranks(
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
    found: Float[np.ndarray, " items"],
    counts: Float[np.ndarray, "draws items"],
) -> Float[np.ndarray, " draws"]:
    """The mean over matches of the precision among the pairs of at least their cosine."""
    order = (-found).argsort(kind="stable")
    _, starts = np.unique(-found[order], return_index=True)
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)
    matches = np.add.reduceat((counts * truth)[:, order], starts, axis=1)
    precision = matches.cumsum(1) / np.maximum(drawn.cumsum(1), 1)
    mean: np.ndarray = (matches * precision).sum(1) / matches.sum(1)
    return mean
