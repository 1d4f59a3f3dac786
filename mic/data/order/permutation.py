"""Shuffle by a formula: the row at place i is computed, and nothing is stored.

A keyed permutation of range(n) answers `row at place i` in O(1) time and memory, so that an order
of 10^9 rows costs nothing to begin, and nothing to begin again in its middle.
"""

import hashlib
import struct

import numpy as np
from jaxtyping import Int64, UInt64

ROUNDS = 8
LARGEST = 2**40  # rows; their halves' sums stay well inside 64 bits
Uint64Array = UInt64[np.ndarray, " count"]


def derive_key(*parts: int) -> int:
    """A key of 64 bits that mixes whole numbers, each from 0 to 2^64 - 1.

    Raises struct.error for another number.
    """
    packed = struct.pack(f"<{len(parts)}Q", *parts)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


def permute(places: Int64[np.ndarray, " count"], n: int, key: int) -> Int64[np.ndarray, " count"]:
    """Where a keyed permutation of range(n) sends each of `places`.

    A generalised Feistel network (Black & Rogaway, Ciphers with Arbitrary Finite Domains, 2002,
    section 4): a place is split into (left, right) in Z_a x Z_b with ab >= n, each round adds to
    one half a keyed hash of the other, and a result outside range(n) is sent through again, which
    ends since the network permutes Z_ab. With a, b about sqrt(n) few are.

    Raises ValueError for places outside range(n).

    >>> permute(np.arange(5), 5, key=1).tolist()
    [4, 0, 3, 2, 1]
    """
    if len(places) and not 0 <= places.min() <= places.max() < n <= LARGEST:
        raise ValueError(f"places {places.min()} to {places.max()}: not all in range({n})")
    b = np.uint64(max(1, round(n**0.5)))
    a = np.uint64(-(-n // int(b)))
    keys = [np.uint64(derive_key(key, turn)) for turn in range(ROUNDS)]
    images = network(places.astype(np.uint64), a, b, keys)
    while len(outside := np.flatnonzero(images >= n)):
        images[outside] = network(images[outside], a, b, keys)
    return images.astype(np.int64)


def network(values: Uint64Array, a: np.uint64, b: np.uint64, keys: list[np.uint64]) -> Uint64Array:
    """One pass of the Feistel network over Z_a x Z_b."""
    left: Uint64Array = values // b
    right: Uint64Array = values % b
    for turn, key in enumerate(keys):
        if turn % 2:
            right = (right + mix(left, key) % b) % b
        else:
            left = (left + mix(right, key) % a) % a
    joined: Uint64Array = left * b + right
    return joined


def mix(values: Uint64Array, key: np.uint64) -> Uint64Array:
    """A keyed hash of each value: the finaliser of splitmix64 (Steele et al. 2014)."""
    mixed: Uint64Array = values * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
