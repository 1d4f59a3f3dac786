"""Relations between tokens (MIPIC): prefixes attend and resemble each other as full states do."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import add
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mic.errors import InputError
from mic.losses.precision import PerWidth, full_precision
from mic.losses.soft_collapse import Mask
from mic.nested import check_dims, prefix

SHORTEST = 3  # two centred tokens have CKA 1 whatever they are
FEWEST = 8  # tokens that CKA compares at least, of those there are
LEAST_SHARE, MORE_SHARE = 2, 5  # tenths of the tokens: 0.2 at the first width, 0.5 more at the last
SPREAD_FLOOR = 1e-10  # a Gram matrix of smaller norm is rounding: its tokens are all the same


class RelationSums(NamedTuple):
    """The sums over a batch's sequences that the terms need: ranks add theirs up.

    `attention` and `cka` sum the losses of every width, `sequences` counts those of three tokens
    or more; shorter ones are in none.
    """

    attention: Float[Tensor, " widths"]
    cka: Float[Tensor, " widths"]
    sequences: Float[Tensor, ""]


@full_precision
def relation_sums(
    hidden: Float[Tensor, "batch length width"],
    mask: Mask,
    lifts: Sequence[Float[Tensor, "_ width"]],
    dims: Sequence[int],
) -> RelationSums:
    """Token-level self-distillation of a layer's prefixes towards its full width, summed.

    Of every sequence of three valid tokens or more, at every width d below the layer's:

    Attention (equations 4 to 6): `KL( a_d || a_full )`, `a_full = softmax_j(q.h_j / sqrt(width))`,
    `a_d = softmax_j(q.(lift_d^T h_j[:d]) / sqrt(width))`, q the first valid token's full state.

    CKA (equations 7 to 12): `1 - <K, F> / (|K| |F|)` with K and F the centred Gram matrices of the
    prefixes and of the full states of the k tokens that a_full ranks first,
    `k = min(m, max(8, ceil(share m)))` of m tokens, where share runs from 0.2 at the first width
    to 0.7 at the last (0.2 at a single one). It is 1 where either side's tokens are all the same.

    Both are 0 where prefixes relate as full states do; CKA ends at 1, attention has no end. The
    full-width side (q, a_full, F) has no gradient. `lifts[i]`, of shape [d, width], belongs to
    `dims[i]`.

    Source: MIPIC (arXiv 2604.24374), section 3.2.

    Raises ValueError for widths that do not increase or reach the layer's, and for lifts that do
    not fit them.
    """
    width = hidden.shape[2]
    dims = check_dims(dims, width)
    check_lifts([tuple(lift.shape) for lift in lifts], dims, width)
    mask = mask.bool()
    # where, not a product: padding may hold anything, NaN included
    states = torch.where(mask[:, :, None], hidden, 0)
    query = first_token(states.detach(), mask) / width**0.5
    teacher = attention_scores(states.detach(), query)
    attention = [
        attention_divergence(
            attention_scores(prefix(states, dim), query @ lift.to(states).T), teacher, mask
        )
        for dim, lift in zip(dims, lifts, strict=True)
    ]
    *grams, target = token_grams(states, mask, dims)
    cka = [
        1 - token_cka(gram, target.detach(), chosen)
        for gram, chosen in zip(grams, top_tokens(teacher, mask, len(dims)), strict=True)
    ]
    long_enough = mask.sum(1) >= SHORTEST
    return RelationSums(
        torch.where(long_enough, torch.stack(attention), 0).sum(1),
        torch.where(long_enough, torch.stack(cka), 0).sum(1),
        long_enough.sum().to(states),
    )


def relation_terms(sums: RelationSums, dims: Sequence[int]) -> dict[str, PerWidth]:
    """Both terms' means over the sequences at every width: {"attention": {d: ...}, "cka": ...}.

    0 without a sequence of three tokens.
    """
    count = sums.sequences.clamp_min(1)
    return {
        "attention": dict(zip(dims, sums.attention / count, strict=True)),
        "cka": dict(zip(dims, sums.cka / count, strict=True)),
    }


def check_lifts(shapes: Sequence[tuple[int, ...]], dims: Sequence[int], width: int) -> None:
    """Raise an InputError unless there is a lift from every width, all below the layer's."""
    if dims[-1] == width:
        raise InputError(
            f"dims {list(dims)}: {width} is the layer's own width, the teacher; remove it"
        )
    if list(shapes) != [(dim, width) for dim in dims]:
        raise InputError(
            f"lifts of shapes {list(shapes)} for dims {list(dims)}: give one of shape "
            f"(dim, {width}) for every dim"
        )


def first_token(
    states: Float[Tensor, "batch length width"], mask: Bool[Tensor, "batch length"]
) -> Float[Tensor, "batch width"]:
    """The state of every sequence's first valid token."""
    first = mask.int().argmax(1)
    return states[torch.arange(len(states), device=states.device), first]


def attention_scores(
    states: Float[Tensor, "batch length dim"], query: Float[Tensor, "batch dim"]
) -> Float[Tensor, "batch length"]:
    """The inner products of every sequence's states with its query."""
    return (states @ query[:, :, None]).squeeze(2)


def attention_divergence(
    student: Float[Tensor, "batch length"],
    teacher: Float[Tensor, "batch length"],
    mask: Bool[Tensor, "batch length"],
) -> Float[Tensor, " batch"]:
    """KL(student || teacher) of the softmax of scores over the valid tokens."""
    # the lowest finite score, not minus infinity: a sequence may have no token at all
    lowest = torch.finfo(student.dtype).min
    mine, theirs = (x.masked_fill(~mask, lowest).log_softmax(1) for x in (student, teacher))
    return torch.where(mask, mine.exp() * (mine - theirs), 0).sum(1)


def top_tokens(
    scores: Float[Tensor, "batch length"], mask: Bool[Tensor, "batch length"], widths: int
) -> Iterator[Bool[Tensor, "batch length"]]:
    """Yield for every width which tokens CKA compares: those of the highest scores."""
    order = scores.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
    ranks = order.argsort(1)
    counts = mask.sum(1, keepdim=True)
    for index in range(widths):
        yield (ranks < token_share(counts, index, widths).clamp_min(FEWEST)) & mask


def token_share(counts: Int[Tensor, "batch 1"], index: int, widths: int) -> Int[Tensor, "batch 1"]:
    """The number of tokens that CKA compares at the i-th of n widths: 0.2 to 0.7, rounded up."""
    # in integers: in floating point 0.3 x 30 is a little above 9 and would round up to 10
    gaps = max(widths - 1, 1)
    return -(-counts * (LEAST_SHARE * gaps + MORE_SHARE * index) // (10 * gaps))


def token_grams(
    states: Float[Tensor, "batch length width"],
    mask: Bool[Tensor, "batch length"],
    dims: Sequence[int],
) -> list[Float[Tensor, "batch length length"]]:
    """The tokens' inner products at every width and, last, at the full one, grown by slices.

    Up to a shift of all tokens, which centring takes away again: they are taken from the tokens'
    mean, without which fp32 would lose the differences between tokens in what they share.
    """
    counts = mask.sum(1).clamp_min(1)[:, None, None]
    shifted = torch.where(mask[:, :, None], states - states.detach().sum(1, True) / counts, 0)
    parts = shifted.tensor_split(tuple(dims), dim=2)
    return list(accumulate((part @ part.mT for part in parts), add))


def token_cka(
    gram: Float[Tensor, "batch length length"],
    target: Float[Tensor, "batch length length"],
    chosen: Bool[Tensor, "batch length"],
) -> Float[Tensor, " batch"]:
    """Linear CKA of the chosen tokens from two Gram matrices; 0 where one side has no spread."""
    mine, theirs = centred(gram, chosen), centred(target, chosen)
    squares = mine.square().sum((1, 2)), theirs.square().sum((1, 2))
    # chosen before the root, which has no gradient at 0
    norms = [square.clamp_min(SPREAD_FLOOR**2).sqrt() for square in squares]
    spread = (squares[0] > SPREAD_FLOOR**2) & (squares[1] > SPREAD_FLOOR**2)
    return torch.where(spread, (mine * theirs).sum((1, 2)) / norms[0] / norms[1], 0)


def centred(
    gram: Float[Tensor, "batch length length"], chosen: Bool[Tensor, "batch length"]
) -> Float[Tensor, "batch length length"]:
    """The Gram matrix of the chosen tokens about their mean; 0 at the others."""
    pairs = chosen[:, :, None] & chosen[:, None, :]
    counts = chosen.sum(1).clamp_min(1)[:, None, None]
    means = torch.where(pairs, gram, 0).sum(2, keepdim=True) / counts
    overall = means.sum(1, keepdim=True) / counts
    return torch.where(pairs, gram - means - means.mT + overall, 0)
