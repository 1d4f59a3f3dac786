"""Slice nested embeddings: tensors whose leading slices are embeddings themselves.

All slicing lives here. Everything that needs a value at every width (cosines, sums over blocks of
a matrix) is computed once for the slices *between* neighbouring widths and then accumulated, so
that K nested widths take the multiplications of the widest one alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from operator import add
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mic.errors import InputError

NORM_FLOOR = 1e-12  # the floor of torch.nn.functional.normalize
MAX_SIMILARITIES = 2**22  # similarities of all widths that a chunk of rows may hold: 16 MiB in fp32


class Encoded(NamedTuple):
    """The output of an encoder for one batch of texts.

    `pooled` [batch, D] is the embedding; `hidden` maps each requested layer to its token states
    [batch, length, H]; `mask` [batch, length] is true at tokens, false at padding.
    """

    pooled: Float[Tensor, "batch dim"]
    hidden: Mapping[int, Float[Tensor, "batch length width"]]
    mask: Bool[Tensor, "batch length"]

    def rows(self, rows: slice, layers: Sequence[int]) -> "Encoded":
        """Some texts of the batch, with some of its layers."""
        hidden = {layer: self.hidden[layer][rows] for layer in layers}
        return Encoded(self.pooled[rows], hidden, self.mask[rows])


def mean_pool(
    hidden: Float[Tensor, "batch length dim"], mask: Bool[Tensor, "batch length"]
) -> Float[Tensor, "batch dim"]:
    """The mean of the valid tokens of every sequence, in at least fp32; 0 for an empty one."""
    hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    return torch.where(mask[:, :, None], hidden, 0).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)


def check_dims(dims: Sequence[int], full: int) -> tuple[int, ...]:
    """`dims` as a tuple, or an InputError when they are not increasing widths from 1 to `full`.

    >>> check_dims([16, 64], 384)
    (16, 64)
    """
    dims = tuple(dims)
    if not dims:
        raise InputError(f"dims []: give at least one width, for example [{full}]")
    if any(low >= high for low, high in pairwise(dims)):
        raise InputError(
            f"dims {list(dims)}: widths must increase; did you mean {sorted(set(dims))}?"
        )
    if dims[0] < 1:
        raise InputError(f"dims {list(dims)}: width {dims[0]} is below 1; remove it")
    if dims[-1] > full:
        raise InputError(
            f"dims {list(dims)}: width {dims[-1]} is above the embedding's {full}; remove it"
        )
    return dims


def with_full(dims: Sequence[int], full: int) -> tuple[int, ...]:
    """The checked widths with the full width at the end: K nested widths d_1 < ... < d_K = D.

    >>> with_full([16, 64], 384)
    (16, 64, 384)
    >>> with_full([], 384)
    (384,)
    """
    return check_dims((*dims, full) if not dims or dims[-1] != full else dims, full)


def prefix(x: Float[Tensor, "*rows dim"], dim: int) -> Float[Tensor, "*rows prefix"]:
    """The first `dim` coordinates."""
    return x[..., :dim]


def residual(x: Float[Tensor, "*rows dim"], dim: int) -> Float[Tensor, "*rows residual"]:
    """The coordinates after the first `dim`."""
    return x[..., dim:]


def unit(x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
    """Rows scaled to length 1; truncate before, never after."""
    return functional.normalize(x, dim=-1, eps=NORM_FLOOR)


def width_slices(x: Float[Tensor, "rows dim"], dims: Sequence[int]) -> list[Tensor]:
    """The coordinates between neighbouring widths: x[:, 0:d_1], x[:, d_1:d_2], ..."""
    return [x[:, start:stop] for start, stop in pairwise((0, *dims))]


def prefix_norms(x: Float[Tensor, "rows dim"], dims: Sequence[int]) -> list[Tensor]:
    """The length of every row's prefix at each width, floored at 1e-12: K tensors [rows]."""
    squares = accumulate((part.square().sum(-1) for part in width_slices(x, dims)), add)
    return [total.clamp_min(NORM_FLOOR**2).sqrt() for total in squares]


def cosines(
    a: Float[Tensor, "rows dim"],
    b: Float[Tensor, "columns dim"],
    dims: Sequence[int],
    *,
    scale: float = 1.0,
) -> Iterator[tuple[int, Float[Tensor, "rows columns"]]]:
    """Yield (width, cosine similarity of the truncated rows times `scale`) for every width.

    The inner products of a prefix are those of the shorter prefix plus one slice, so all widths
    together cost the multiplications of the widest. Differentiable once.
    """
    pairs = zip(width_slices(a, dims), width_slices(b, dims), strict=True)
    norms = zip(prefix_norms(a, dims), prefix_norms(b, dims), strict=True)
    products: Tensor | None = None
    for dim, (x, y), (rows, columns) in zip(dims, pairs, norms, strict=True):
        products = x @ y.T if products is None else torch.addmm(products, x, y.T)
        yield dim, Scaled.apply(products, scale / rows, 1 / columns)  # type: ignore[no-untyped-call]


class Scaled(Function):
    """A matrix with its rows and columns scaled; saves its result, as the next function does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        scaled = (x * rows[:, None]).mul_(columns)
        ctx.save_for_backward(scaled, rows, columns)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled, rows, columns = ctx.saved_tensors
        shares = gradient * scaled
        to_rows, to_columns = shares.sum(1) / rows, shares.sum(0) / columns
        return torch.mul(gradient, rows[:, None], out=shares).mul_(columns), to_rows, to_columns


def chunked(sums: Callable[..., Tensor], entries: int, *rows: Tensor) -> Tensor:
    """`sums(*rows)` for a function that sums over rows, in chunks where whole it would not fit.

    A row costs `entries` similarities; a chunk holds at most MAX_SIMILARITIES of them. Where there
    are several chunks each is computed anew in the backward pass, so that memory holds one.
    """
    size = max(1, MAX_SIMILARITIES // entries)
    if len(rows[0]) <= size:
        return sums(*rows)
    chunks = zip(*(torch.split(x, size) for x in rows), strict=True)
    summed = [
        checkpoint(sums, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks
    ]
    return torch.stack(summed).sum(0)


def paired_cosines(
    a: Float[Tensor, "rows dim"], b: Float[Tensor, "rows dim"], dims: Sequence[int]
) -> dict[int, Float[Tensor, " rows"]]:
    """The cosine similarity of row i of `a` with row i of `b` at every width."""
    pairs = zip(width_slices(a, dims), width_slices(b, dims), strict=True)
    products = accumulate(((x * y).sum(-1) for x, y in pairs), add)
    norms = zip(prefix_norms(a, dims), prefix_norms(b, dims), strict=True)
    return {
        dim: product / left / right
        for dim, product, (left, right) in zip(dims, products, norms, strict=True)
    }


def segment_sums(
    x: Float[Tensor, "dim dim"], dims: Sequence[int]
) -> Float[Tensor, "segments segments"]:
    """Sums of a square matrix over the blocks that the widths cut it into.

    With the full width last in `dims`, `segment_sums(x, dims)[:k, k:].sum()` is the sum over the
    block of prefix k and its residual: one pass over the matrix serves every width.
    """
    sizes = [stop - start for start, stop in pairwise((0, *dims))]
    rows = torch.stack([part.sum(0) for part in torch.split(x, sizes, dim=0)])
    return torch.stack([part.sum(1) for part in torch.split(rows, sizes, dim=1)], dim=1)
