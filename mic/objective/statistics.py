"""The statistics of a batch that the losses need: rows that concatenate and sums that add up.

The chunks of a batch on one device and the rows of several ranks join in the same way, so that
neither chunks nor ranks change the value of a loss.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mic.losses.mipic import RelationSums
from mic.losses.soft_collapse import CollapseSums

Key = tuple[str | int, ...]  # ("pooled", view), ("layer", view, layer), ...
Sums = CollapseSums | RelationSums


class BatchStatistics(NamedTuple):
    """Rows [rows, _] of a chunk of a batch or of all of it, and sums over its tokens."""

    rows: Mapping[Key, Tensor]
    sums: Mapping[Key, Sums]


def join(chunks: Sequence[BatchStatistics]) -> BatchStatistics:
    """The statistics of the whole batch, its chunks in the given order."""
    first = chunks[0]
    return BatchStatistics(
        {key: torch.cat([chunk.rows[key] for chunk in chunks]) for key in first.rows},
        {key: add_sums([chunk.sums[key] for chunk in chunks]) for key in first.sums},
    )


def add_sums(chunks: Sequence[Sums]) -> Sums:
    return type(chunks[0])(*(sum(values) for values in zip(*chunks, strict=True)))


def tensors(statistics: BatchStatistics) -> list[Tensor]:
    """All tensors of the statistics, in a fixed order."""
    sums = (value for sums in statistics.sums.values() for value in sums)
    return [*statistics.rows.values(), *sums]
