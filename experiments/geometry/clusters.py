"""Correlations whose interval knows that the seeds of one method are not independent.

The bootstrap draws methods, not runs: a method that is drawn brings all its seeds, as often as it
is drawn. All resamples are computed at once, from how often each holds each point.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 10_000
SEED = 42
LEVEL = 0.95
LEAST = 4  # methods


class Estimate(NamedTuple):
    """A correlation, and the 2.5 and 97.5 % quantiles of the resamples'.

    `undefined` is the share of resamples that had none, as x or y did not vary in them.
    """

    value: float
    low: float
    high: float
    undefined: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves 0 out on this side; 0 where it holds it."""
        return int(self.low > 0) - int(self.high < 0)


class Correlation(NamedTuple):
    """Spearman's rho and Pearson's r of so many points of so many methods."""

    rho: Estimate
    r: Estimate
    points: int
    methods: int


def correlation(
    x: Sequence[float],
    y: Sequence[float],
    methods: Sequence[Hashable],
    resamples: int = RESAMPLES,
) -> Correlation | None:
    """How x and y of points go together.

    None with finite points of fewer than 4 methods, or where x or y does not vary.
    """
    kept = [
        (*pair, method)
        for *pair, method in zip(x, y, methods, strict=True)
        if np.isfinite(pair).all()
    ]
    numbers = {method: number for number, method in enumerate(dict.fromkeys(m for *_, m in kept))}
    if len(numbers) < LEAST:
        return None
    columns = np.array([pair for *pair, _ in kept], dtype=np.double)
    drawn = draws(len(numbers), resamples)
    weights = np.vstack([np.ones(len(kept)), drawn[:, [numbers[m] for *_, m in kept]]])
    varies = spread(weights, columns[:, 0]) & spread(weights, columns[:, 1])
    if not varies[0]:
        return None
    ranks = [weighted_ranks(weights, column) for column in columns.T]
    rho = np.where(varies, weighted_pearson(weights, *ranks), np.nan)
    r = np.where(varies, weighted_pearson(weights, *columns.T), np.nan)
    return Correlation(estimate(rho), estimate(r), len(kept), len(numbers))


def draws(methods: int, resamples: int) -> Int[np.ndarray, "resamples methods"]:
    """How often each resample holds each method; the same at any call."""
    chosen = np.random.default_rng(SEED).integers(0, methods, (resamples, methods))
    numbered = (chosen + methods * np.arange(resamples)[:, None]).ravel()
    return np.bincount(numbered, minlength=chosen.size).reshape(chosen.shape)


def spread(
    weights: Float[np.ndarray, "resamples points"], x: Float[np.ndarray, " points"]
) -> np.ndarray:
    """Which resamples hold at least two different values."""
    there = weights > 0
    return np.where(there, x, -np.inf).max(1) > np.where(there, x, np.inf).min(1)


def weighted_ranks(
    weights: Float[np.ndarray, "resamples points"], x: Float[np.ndarray, " points"]
) -> Float[np.ndarray, "resamples points"]:
    """Each point's rank in each resample, the mean of ranks where values are equal.

    Below it are all lower values, as often as they are there, and half of the equal ones.
    """
    below = (x[:, None] < x) + 0.5 * (x[:, None] == x)
    return weights @ below + 0.5


def weighted_pearson(
    weights: Float[np.ndarray, "resamples points"], x: np.ndarray, y: np.ndarray
) -> Float[np.ndarray, " resamples"]:
    """Pearson's r of points that are there so often; x and y may differ by the resample."""
    total = weights.sum(1, keepdims=True)
    x = x - (weights * x).sum(1, keepdims=True) / total
    y = y - (weights * y).sum(1, keepdims=True) / total
    above = (weights * x * y).sum(1)
    squares = (weights * x**2).sum(1) * (weights * y**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):  # of what does not vary
        return (above / np.sqrt(squares)).clip(-1, 1)


def estimate(samples: Float[np.ndarray, " samples"]) -> Estimate:
    """Of the value of the points as they are, and then those of the resamples."""
    value, drawn = float(samples[0]), samples[1:]
    finite = drawn[np.isfinite(drawn)]
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), 1 - len(finite) / len(drawn))
