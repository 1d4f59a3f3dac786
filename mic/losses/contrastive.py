"""Nested contrastive learning: InfoNCE at every width."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mic.errors import InputError
from mic.losses.precision import PerWidth, full_precision
from mic.nested import check_dims, cosines


@full_precision
def nested_infonce(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "keys dim"],
    dims: Sequence[int],
    *,
    temperature: float = 0.05,
) -> PerWidth:
    """Contrast every query with all keys at every width; row i's positive is key i.

    `L(d) = -mean_i log( exp(s_ii) / sum_j exp(s_ij) )`, `s_ij = cos(q_i, k_j) / temperature`, with
    q and k truncated to d, then normalised. Keys beyond the queries' count are hard negatives
    that every query sees. log(keys) means chance, 0 means that every positive stands alone.

    Source: InfoNCE (van den Oord et al. 2018) nested as in Matryoshka representation learning
    (Kusupati et al. 2022, equation 1); L_MRL of MIC.

    Raises ValueError for widths that do not increase or exceed D, and for fewer keys than queries.

    >>> losses = nested_infonce(torch.eye(4), torch.eye(4), [1, 4])
    >>> {dim: round(loss.item(), 4) for dim, loss in losses.items()}
    {1: 1.0397, 4: 0.0}
    """
    dims = check_dims(dims, queries.shape[1])
    if keys.shape[1] != queries.shape[1]:
        raise InputError(
            f"keys of width {keys.shape[1]} for queries of width {queries.shape[1]}: encode both "
            "with the same encoder"
        )
    if len(keys) < len(queries):
        raise InputError(
            f"{len(keys)} keys for {len(queries)} queries: key i is query i's positive, "
            "so give at least as many keys as queries"
        )
    positives = torch.arange(len(queries), device=queries.device)
    sums = infonce_sums(queries, keys, positives, dims, temperature)
    return dict(zip(dims, sums / len(queries), strict=True))


@full_precision
def infonce_sums(
    queries: Float[Tensor, "rows dim"],
    keys: Float[Tensor, "keys dim"],
    positives: Int[Tensor, " rows"],
    dims: Sequence[int],
    temperature: float,
) -> Float[Tensor, " widths"]:
    """The loss of every width summed over the queries, of which each names its positive key.

    Ranks that hold parts of a batch add these up: `queries` are one's own, `keys` those of all.
    """
    return torch.stack(
        [
            functional.cross_entropy(scores / temperature, positives, reduction="sum")
            for _, scores in cosines(queries, keys, dims)
        ]
    )
