"""Compute InfoNCE at every width: nested contrastive learning."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from mic.errors import InputError
from mic.losses.precision import PerWidth, full_precision
from mic.nested import check_dims, chunked, cosines


@full_precision
def nested_infonce(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "keys dim"],
    dims: Sequence[int],
    *,
    temperature: float = 0.05,
    symmetric: bool = False,
    excluded: Bool[Tensor, "batch keys"] | None = None,
) -> PerWidth:
    """Contrast every query with all keys at every width; row i's positive is key i.

    `L(d) = -mean_i log( exp(s_ii) / sum_j exp(s_ij) )`, `s_ij = cos(q_i, k_j) / temperature`, with
    q and k truncated to d, then normalised. Keys beyond the queries' count are hard negatives
    that every query sees. log(keys) means chance, 0 means that every positive stands alone.

    `symmetric` takes the mean with the other direction, in which key i finds query i among all
    queries (CLIP, Radford et al. 2021, figure 3); hard negatives are no queries. Pairs in
    `excluded` are false negatives and left out of the sums over j, in both directions; a positive
    never is.

    Source: InfoNCE (van den Oord et al. 2018) nested as in Matryoshka representation learning
    (Kusupati et al. 2022, equation 1); L_MRL of MIC.

    Raises ValueError for widths that do not increase or exceed D, for fewer keys than queries, and
    for `excluded` of another shape than queries x keys.

    >>> losses = nested_infonce(torch.eye(4), torch.eye(4), [1, 4])
    >>> {dim: round(loss.item(), 4) for dim, loss in losses.items()}
    {1: 1.0397, 4: 0.0}
    """
    dims = check_dims(dims, queries.shape[1])
    count = len(queries)
    if keys.shape[1] != queries.shape[1]:
        raise InputError(
            f"keys of width {keys.shape[1]} for queries of width {queries.shape[1]}: encode both "
            "with the same encoder"
        )
    if len(keys) < count:
        raise InputError(
            f"{len(keys)} keys for {count} queries: key i is query i's positive, "
            "so give at least as many keys as queries"
        )
    if excluded is not None and excluded.shape != (count, len(keys)):
        raise InputError(
            f"excluded of shape {tuple(excluded.shape)} for {count} queries and {len(keys)} keys: "
            f"expected ({count}, {len(keys)})"
        )
    positives = torch.arange(count, device=queries.device)
    sums = infonce_sums(queries, keys, positives, dims, temperature, excluded)
    if symmetric:
        back = None if excluded is None else excluded[:, :count].T
        sums = (sums + infonce_sums(keys[:count], queries, positives, dims, temperature, back)) / 2
    return dict(zip(dims, sums / count, strict=True))


@full_precision
def infonce_sums(
    queries: Float[Tensor, "rows dim"],
    keys: Float[Tensor, "keys dim"],
    positives: Int[Tensor, " rows"],
    dims: Sequence[int],
    temperature: float,
    excluded: Bool[Tensor, "rows keys"] | None = None,
) -> Float[Tensor, " widths"]:
    """The loss of every width summed over the queries, `positives[i]` being query i's key.

    Ranks add these sums up: `queries` are those of one rank, `keys` those of all ranks.
    """

    def sums(queries: Tensor, positives: Tensor, *excluded: Tensor) -> Tensor:
        others = [mask.scatter(1, positives[:, None], False) for mask in excluded]

        def loss(scores: Tensor) -> Tensor:
            for mask in others:
                scores = scores.masked_fill(mask, -torch.inf)
            return functional.cross_entropy(scores, positives, reduction="sum")

        scores = cosines(queries, keys, dims, scale=1 / temperature)
        return torch.stack([loss(matrix) for _, matrix in scores])

    rows = (queries, positives) if excluded is None else (queries, positives, excluded)
    return chunked(sums, len(dims) * len(keys), *rows)
