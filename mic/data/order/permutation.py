"""A shuffle that is a formula: place i of the order is computed, nothing is stored.

A keyed permutation of range(n) answers `row at place i` in O(1) time and memory, so that an order
of 10^9 rows costs nothing to begin, and nothing to begin again in its middle.
"""

import hashlib
import struct

import numpy as np
from jaxtyping import Int64, UInt64

ROUNDS = 8
LARGEST = 2**40  # rows; their halves' sums stay well inside 64 bits
Words = UInt64[np.ndarray, " count"]


def key_of(*parts: int) -> int:
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
    keys = [np.uint64(key_of(key, turn)) for turn in range(ROUNDS)]
    found = network(places.astype(np.uint64), a, b, keys)
    while len(outside := np.flatnonzero(found >= n)):
        found[outside] = network(found[outside], a, b, keys)
    return found.astype(np.int64)


def network(values: Words, a: np.uint64, b: np.uint64, keys: list[np.uint64]) -> Words:
    """One pass of the Feistel network over Z_a x Z_b."""
    left: Words = values // b
    right: Words = values % b
    for turn, key in enumerate(keys):
        if turn % 2:
            right = (right + mix(left, key) % b) % b
        else:
            left = (left + mix(right, key) % a) % a
    joined: Words = left * b + right
    return joined


def mix(values: Words, key: np.uint64) -> Words:
    """A keyed hash of each value: the finaliser of splitmix64 (Steele et al. 2014)."""
    mixed: Words = values * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
