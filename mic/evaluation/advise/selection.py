"""Which point to take: the smallest that surely keeps the wanted share, luck with queries counted.

The queries are drawn anew, with replacement, 1,000 times; point and full vectors answer the same
draws. "Surely": the lower end of the 95 % interval of the kept share is not below the wanted one.
The point that only looks good enough is told beside it: the smallest of many that do is easily one
that was lucky.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from mic.errors import InputError
from mic.evaluation.advise.quality import Found, Point
from mic.metrics.bootstrap import LEVEL, draw_counts
from mic.metrics.quantization import bytes_per_vector


class Kept(NamedTuple):
    """A point's quality, and the share of the full vectors' quality that it keeps, times 100."""

    quality: float
    share: float
    low: float
    high: float


class Advice(NamedTuple):
    """`sure` keeps the share in the whole interval; `perhaps` by its mean alone, and is smaller.

    Both are None where only the full vectors keep it. `best` keeps most of all smaller ones.
    """

    sure: Point | None
    perhaps: Point | None
    best: Point


def size(point: Point) -> int:
    """Bytes of a vector."""
    return bytes_per_vector(point.dim)[point.precision]


def kept_shares(found: Found) -> dict[Point, Kept]:
    """Every point's share of the full quality with its interval.

    Raises InputError where the full vectors find nothing that is relevant.
    """
    values = torch.stack(list(found.values.values())).double().numpy()
    full = list(found.values).index(found.full)
    means = values.mean(1)
    if not means[full] > 0:
        raise InputError(
            f"{found.metric} of the full vectors is 0: no query finds a document that is relevant; "
            "check the ids in --qrels"
        )
    drawn = np.concatenate([counts @ values.T for counts in draw_counts("advise", values.shape[1])])
    drawn = drawn[drawn[:, full] > 0]  # a draw in which the full vectors find nothing has no share
    shares = drawn / drawn[:, [full]]
    ends = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return {
        point: Kept(*(100 * x for x in map(float, (mean, mean / means[full], low, high))))
        for point, mean, low, high in zip(found.values, means, *ends, strict=True)
    }


def choose(kept: Mapping[Point, Kept], full: Point, keep: float) -> Advice:
    """The smallest points that keep a share; of equally small ones the one that keeps most."""
    smaller = [point for point in kept if size(point) < size(full)]
    order = sorted(smaller, key=lambda point: (size(point), -kept[point].share))
    sure = next((point for point in order if at_least(kept[point].low, keep)), None)
    perhaps = next((point for point in order if at_least(kept[point].share, keep)), None)
    if perhaps is not None and sure is not None and size(perhaps) >= size(sure):
        perhaps = None
    return Advice(sure, perhaps, max(order, key=lambda point: kept[point].share))


def at_least(share: float, keep: float) -> bool:
    """Whether a share, times 100, is a wanted one or more; rounding apart."""
    return share >= 100 * keep - 1e-9
