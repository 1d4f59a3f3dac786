"""Whether one model beats another, or only its luck with the test items: a paired bootstrap.

The test items are drawn anew, with replacement, 1,000 times; both models answer the same draws, so
that what is hard for both does not count. Of several seeds of a model the mean score is taken on
every draw: the seeds stay as they are, so the interval speaks of other test items, not other seeds.
"""

from collections.abc import Iterator, Sequence
from math import erfc, isfinite, sqrt
from typing import NamedTuple
from zlib import crc32

import numpy as np
from jaxtyping import Float

from mic.metrics.bootstrap import Items, redrawn

DRAWS = 1000
BLOCK = 50  # draws at a time
SEED = 42
LEVEL = 0.95


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


def draws(task: str, items: int) -> Iterator[Float[np.ndarray, "draws items"]]:
    """How often each draw of a task holds each item, some draws at a time; the same at any call."""
    generator = np.random.default_rng([SEED, crc32(task.encode())])
    for _ in range(0, DRAWS, BLOCK):
        chosen = generator.integers(0, items, (BLOCK, items))
        numbered = (chosen + items * np.arange(BLOCK)[:, None]).ravel()
        counts = np.bincount(numbered, minlength=BLOCK * items).reshape(BLOCK, items)
        yield counts.astype(np.double)


def samples(task: str, models: Sequence[Items], dim: int) -> Float[np.ndarray, " samples"]:
    """The mean score of models (one, or its seeds): of the items as given, then of every draw."""
    count = len(models[0].truth)
    blocks = [np.ones((1, count)), *draws(task, count)]
    return np.concatenate(
        [np.mean([redrawn(one, dim, counts) for one in models], axis=0) for counts in blocks]
    )


def difference(
    a: Float[np.ndarray, " samples"], b: Float[np.ndarray, " samples"], items: int
) -> Difference:
    """How much higher `a` is than `b`, from what `samples` gave for both."""
    value, drawn = float(a[0] - b[0]), (a - b)[1:]
    drawn = drawn[np.isfinite(drawn)]  # a draw without a match, or without variation, has no score
    if not isfinite(value) or not len(drawn):
        return Difference(value, np.nan, np.nan, 1.0, items)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    spread = float(drawn.std(ddof=1))
    p = erfc(abs(value) / spread / sqrt(2)) if spread else float(value == 0)
    return Difference(value, float(low), float(high), p, items)


def holm(p: Sequence[float], level: float = 1 - LEVEL) -> list[bool]:
    """Which of several comparisons hold when there are so many: Holm's step-down procedure.

    With 95 % none of those that hold is due to chance alone, whatever they depend on.

    >>> holm([0.001, 0.04, 0.02, 0.5])
    [True, False, False, False]
    """
    held = [False] * len(p)
    for rank, at in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[at] > level / (len(p) - rank):
            break
        held[at] = True
    return held
