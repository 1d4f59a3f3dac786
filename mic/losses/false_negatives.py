"""Which pairs of a batch are no negatives: rows that say the same, keys as near as the positive."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mic.losses.precision import full_precision
from mic.nested import unit


def shared(
    a: Int[Tensor, "rows columns"], b: Int[Tensor, "others columns_b"]
) -> Bool[Tensor, "rows others"]:
    """Whether row i of `a` and row j of `b` have a number in common, in any of their columns.

    With the hashes of a row's texts, and its group, in the columns, such rows are no negatives of
    each other: key j is an answer to query i, or its very text.

    >>> shared(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[2, 9], [5, 6]]))
    tensor([[ True, False],
            [False, False]])
    """
    found = torch.zeros(len(a), len(b), dtype=torch.bool, device=a.device)
    for column in a.T:
        for other in b.T:
            found |= column[:, None] == other
    return found


@full_precision
def nearer(
    queries: Float[Tensor, "rows dim"],
    keys: Float[Tensor, "keys dim"],
    positives: Int[Tensor, " rows"],
    margin: float,
) -> Bool[Tensor, "rows keys"]:
    """Keys that a teacher finds nearer to a query than its positive less `margin`, by the cosine.

    They are likely answers that nobody labelled (GISTEmbed, Solatorio 2024, section 3). Give the
    teacher's embeddings.
    """
    similarity = unit(queries) @ unit(keys).T
    return similarity > similarity.gather(1, positives[:, None]) - margin
