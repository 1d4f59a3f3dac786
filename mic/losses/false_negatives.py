"""Masks of false negatives: rows with an id in common, keys as near as the positive."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mic.losses.precision import full_precision
from mic.nested import unit


def sharing_ids(
    a: Int[Tensor, "rows columns"], b: Int[Tensor, "others columns_b"]
) -> Bool[Tensor, "rows others"]:
    """Whether row i of `a` and row j of `b` have a number in common, in any of their columns.

    The columns hold the hashes of a row's texts, and its group: rows with a number in common are
    false negatives of each other, because key j answers query i or equals its text.

    >>> sharing_ids(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[2, 9], [5, 6]]))
    tensor([[ True, False],
            [False, False]])
    """
    equal = torch.zeros(len(a), len(b), dtype=torch.bool, device=a.device)
    for column in a.T:
        for other in b.T:
            equal |= column[:, None] == other
    return equal


@full_precision
def nearer_than_positive(
    queries: Float[Tensor, "rows dim"],
    keys: Float[Tensor, "keys dim"],
    positives: Int[Tensor, " rows"],
    margin: float,
) -> Bool[Tensor, "rows keys"]:
    """Keys whose cosine with a query exceeds that of its positive less `margin`, by a teacher.

    They are likely unlabelled positives (GISTEmbed, Solatorio 2024, section 3). Give the
    teacher's embeddings.
    """
    similarity = unit(queries) @ unit(keys).T
    return similarity > similarity.gather(1, positives[:, None]) - margin
