"""Quantize embeddings: int8 with a range for each coordinate, binary by sign.

The codes are those of sentence-transformers' `quantize_embeddings`, so that an index made with
either can be searched with both. Cut to the width and scale to length 1 before, never after.
"""

import torch
from jaxtyping import Float, Int8, Int64, UInt8
from torch import Tensor

from mic.errors import InputError

LEVELS = 255  # steps between the ends of a coordinate's range
PRECISIONS = ("fp32", "int8", "binary")


def bytes_per_vector(dim: int) -> dict[str, int]:
    """The bytes that an index stores for a vector at each precision, without its overhead.

    >>> bytes_per_vector(64)
    {'fp32': 256, 'int8': 64, 'binary': 8}
    """
    return {"fp32": 4 * dim, "int8": dim, "binary": -(-dim // 8)}


def int8_ranges(sample: Float[Tensor, "rows dim"]) -> Float[Tensor, "two dim"]:
    """The least and the largest value of every coordinate of a sample: what int8 codes divide.

    Raises InputError for a sample of fewer than two rows, which has no range.
    """
    if len(sample) < 2:
        raise InputError(f"int8 ranges of {len(sample)} vectors: give a sample of at least 2")
    return torch.stack([sample.amin(0), sample.amax(0)])


def to_int8(
    x: Float[Tensor, "rows dim"], ranges: Float[Tensor, "two dim"]
) -> Int8[Tensor, "rows dim"]:
    """Each coordinate's place within its range, -128 to 127; what lies outside takes the end."""
    low, step = scale(ranges)
    return (((x - low) / step).floor().clamp(0, LEVELS) - 128).to(torch.int8)


def from_int8(
    codes: Int8[Tensor, "rows dim"], ranges: Float[Tensor, "two dim"]
) -> Float[Tensor, "rows dim"]:
    """The middles of the codes' steps: within half a step of the coded values."""
    low, step = scale(ranges)
    return low + (codes.to(step.dtype) + 128.5) * step


def scale(ranges: Float[Tensor, "two dim"]) -> tuple[Tensor, Tensor]:
    """Where each coordinate's range begins, and its step; 1 for a coordinate that never varies."""
    low, high = ranges
    step = (high - low) / LEVELS
    return low, torch.where(step == 0, 1.0, step)


def to_binary(x: Float[Tensor, "rows dim"]) -> UInt8[Tensor, "rows bytes"]:
    """A bit a coordinate, set where it is above 0, eight to a byte, the first one highest.

    The last byte of a width that eight does not divide ends with zeros.
    """
    bits = torch.nn.functional.pad((x > 0).to(torch.uint8), (0, -x.shape[1] % 8))
    weights = 2 ** torch.arange(7, -1, -1, device=x.device)
    packed: Tensor = (bits.view(len(x), -1, 8) * weights).sum(-1)
    return packed.to(torch.uint8)


def hamming(
    a: UInt8[Tensor, "rows bytes"], b: UInt8[Tensor, "columns bytes"]
) -> Int64[Tensor, "rows columns"]:
    """In how many bits each row of `a` differs from each row of `b`; the nearest has the fewest.

    For signs it ranks as their cosine does: cos = 1 - 2 hamming / d.
    """
    counts = torch.tensor([byte.bit_count() for byte in range(256)], device=a.device)
    return torch.stack([counts[(row ^ b).long()].sum(-1) for row in a])


def as_compared(
    vectors: Float[Tensor, "rows dim"], ranges: Float[Tensor, "two dim"]
) -> dict[str, Float[Tensor, "rows dim"]]:
    """The vectors that a search compares by cosine at each precision, from vectors of length 1.

    int8 codes are decoded. The cosine of signs, +1 and -1, ranks as the Hamming distance.
    """
    return {
        "fp32": vectors,
        "int8": from_int8(to_int8(vectors, ranges), ranges),
        "binary": torch.where(vectors > 0, 1.0, -1.0),
    }
