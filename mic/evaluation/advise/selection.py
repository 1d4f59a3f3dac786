"""Choose the smallest width and precision that keeps the wanted share of quality.

The queries are drawn with replacement 1,000 times; a point and the full vectors are compared on the
same draws. A point is sure to keep the share where the lower end of its 95 % interval is not below
it. The smallest point whose mean alone is high enough is shown as well: among many points, it is
easily one that is good by chance.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from mic.errors import InputError
from mic.evaluation.advise.quality import OperatingPoint, QueryScores
from mic.metrics.bootstrap import LEVEL, draw_counts
from mic.metrics.quantization import bytes_per_vector


class KeptShare(NamedTuple):
    """A point's quality, and its share of the full vectors' with an interval, times 100."""

    quality: float
    share: float
    low: float
    high: float


class Advice(NamedTuple):
    """The chosen points: `sure` keeps the share in its whole interval, `perhaps` in its mean alone.

    Both are None where only the full vectors keep it; `perhaps` also where it is not smaller.
    `best` keeps the most of all points that are smaller than the full vectors.
    """

    sure: OperatingPoint | None
    perhaps: OperatingPoint | None
    best: OperatingPoint


def vector_bytes(point: OperatingPoint) -> int:
    """Bytes of a vector."""
    return bytes_per_vector(point.dim)[point.precision]


def kept_shares(scores: QueryScores) -> dict[OperatingPoint, KeptShare]:
    """Every point's share of the full quality with its interval.

    Raises InputError where the full vectors find nothing that is relevant.
    """
    values = torch.stack(list(scores.values.values())).double().numpy()
    full = list(scores.values).index(scores.full)
    means = values.mean(1)
    if not means[full] > 0:
        raise InputError(
            f"{scores.metric} of the full vectors is 0: no query finds a relevant document; "
            "check the ids in --qrels"
        )
    drawn = np.concatenate([counts @ values.T for counts in draw_counts("advise", values.shape[1])])
    drawn = drawn[drawn[:, full] > 0]  # a draw in which the full vectors find nothing has no share
    shares = drawn / drawn[:, [full]]
    ends = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return {
        point: KeptShare(*(100 * x for x in map(float, (mean, mean / means[full], low, high))))
        for point, mean, low, high in zip(scores.values, means, *ends, strict=True)
    }


def choose(shares: Mapping[OperatingPoint, KeptShare], full: OperatingPoint, keep: float) -> Advice:
    """The smallest points that keep a share; of equally small points the one that keeps most."""
    smaller = [point for point in shares if vector_bytes(point) < vector_bytes(full)]
    order = sorted(smaller, key=lambda point: (vector_bytes(point), -shares[point].share))
    sure = next((point for point in order if at_least(shares[point].low, keep)), None)
    perhaps = next((point for point in order if at_least(shares[point].share, keep)), None)
    if perhaps is not None and sure is not None and vector_bytes(perhaps) >= vector_bytes(sure):
        perhaps = None
    return Advice(sure, perhaps, max(order, key=lambda point: shares[point].share))


def at_least(share: float, keep: float) -> bool:
    """Whether a share, times 100, is at least the wanted one, apart from rounding errors."""
    return share >= 100 * keep - 1e-9
