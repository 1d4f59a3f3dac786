"""What the losses need of a part of a batch: rows that concatenate and sums that add up.

Chunks of a batch on one device and the parts of a batch on many ranks join in the same way, so that
neither changes the value of a loss.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mic.losses.mipic import RelationSums
from mic.losses.soft_collapse import CollapseSums

Key = tuple[str | int, ...]  # ("pooled", view), ("layer", view, layer), ...
Sums = CollapseSums | RelationSums


class Summary(NamedTuple):
    """Rows [rows, _] of a part of a batch, and what its tokens add up to."""

    rows: Mapping[Key, Tensor]
    sums: Mapping[Key, Sums]


def join(parts: Sequence[Summary]) -> Summary:
    """The summary of the batch that the parts make up, in their order."""
    first = parts[0]
    return Summary(
        {key: torch.cat([part.rows[key] for part in parts]) for key in first.rows},
        {key: add([part.sums[key] for part in parts]) for key in first.sums},
    )


def add(parts: Sequence[Sums]) -> Sums:
    return type(parts[0])(*(sum(values) for values in zip(*parts, strict=True)))


def tensors(summary: Summary) -> list[Tensor]:
    """Every tensor of a summary, in one order."""
    return [*summary.rows.values(), *(value for sums in summary.sums.values() for value in sums)]
