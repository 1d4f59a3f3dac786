"""Rows of several sections, for tests of the order: each row's number is its place."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from mic.data.order.batch_order import Drawn, Order, Section

FAR = 10**6  # what an epoch adds to the numbers, to see which one was drawn


@dataclass
class Population:
    """Rows by place, how they share batches, and how many were drawn at each time."""

    keys: np.ndarray
    lengths: np.ndarray
    parts: list[Section]
    asked: list[int] = field(default_factory=list)

    def draw(self, epoch: int, places: np.ndarray) -> Drawn:
        self.asked.append(len(places))
        return Drawn(places + epoch * FAR, -places, self.keys[places], self.lengths[places])

    def sections(self, epoch: int) -> list[Section]:
        return self.parts

    def order(self, seed: int = 0, window: int = 0) -> Order:
        return Order(self.draw, self.sections, seed, window)

    def met(self, places: Sequence[int]) -> int:
        """The most others that any of these rows shares a key with."""
        held = [set(self.keys[place].tolist()) for place in places]
        return max((sum(bool(first & two) for two in held) - 1 for first in held), default=0)


def plain(rows: int, size: int) -> Population:
    """Rows of random lengths that share nothing, in one section."""
    lengths = np.random.default_rng(0).integers(1, 500, (rows, 1)).astype(np.int32)
    keys = np.arange(rows, dtype=np.uint64)[:, None]
    return Population(keys, lengths, [Section(rows, size, 0)])


def batches(order: Order, epoch: int = 0) -> list[list[int]]:
    """The places of every batch of an epoch."""
    drawn = [order.batch(epoch, position) for position in range(order.length(epoch))]
    return [(batch.numbers - epoch * FAR).tolist() for batch in drawn]


@st.composite
def populations(draw: st.DrawFn) -> Population:
    """Two to five sections, from a start or listed: few or many keys repeat, in the last none."""
    counts = [*draw(st.lists(st.integers(0, 60), min_size=1, max_size=4)), 7]
    rows, columns = sum(counts), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    keys = rng.integers(0, draw(st.sampled_from([8, 100, 10**6])), (rows, columns))
    lengths = rng.integers(1, 50, (rows, 2)).astype(np.int32)
    population = Population(keys.astype(np.uint64), lengths, [])
    mixed = rng.permutation(rows)
    listed, start = draw(st.booleans()), 0
    for count in counts:
        places = mixed[start : start + count] if listed else np.arange(start, start + count)
        if start + count == rows:
            population.keys[places] = 10**7 + places[:, None].astype(np.uint64)
        size, bound = draw(st.integers(1, 6)), population.met(places) + draw(st.integers(0, 1))
        place = {"listed": places} if listed else {"start": start}
        population.parts.append(Section(count, size, bound, **place))
        start += count
    return population


windows = st.sampled_from([0, 1, 5, 20, 1000])
