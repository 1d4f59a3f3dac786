"""Embeddings that stay on disk: rows of a file, read when they are asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

NUMBER = np.dtype("<f4")
Change = Callable[[Float[Tensor, "rows stored"]], Float[Tensor, "rows dim"]]


@dataclass(frozen=True)
class Embeddings:
    """Rows of `file` as a tensor [rows, dim] that is not in memory; `x[rows]` reads some of them.

    `rows` is a slice or a list of numbers; the result is a tensor in memory. Row i is row
    `file_rows[i]` of the file, which holds `stored_width` float32 a row and nothing else. `change`
    is applied to the rows that are read; after it they have `changed_width` dimensions, where that
    is given.
    """

    file: Path
    stored_width: int
    file_rows: Int64[np.ndarray, " rows"]
    change: Change | None = None
    changed_width: int | None = None

    @property
    def width(self) -> int:
        return self.stored_width if self.changed_width is None else self.changed_width

    def __len__(self) -> int:
        return len(self.file_rows)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.width

    def __getitem__(self, rows: slice | Sequence[int]) -> Float[Tensor, "some dim"]:
        wanted = self.file_rows[rows]
        if not len(wanted):  # an empty file cannot be mapped
            return torch.empty(0, self.width)
        # mapped anew each time: what was read before is no longer part of the process
        mapped = np.memmap(self.file, NUMBER, "r").reshape(-1, self.stored_width)
        read = torch.from_numpy(mapped[wanted].astype(np.float32, copy=False))
        return read if self.change is None else self.change(read)


Vectors = Float[Tensor, "rows dim"] | Embeddings  # in memory or on disk, both indexed by rows


def apply_change(x: Vectors, change: Change) -> Vectors:
    """Rows after a change, as a projection: those of a file are changed when they are read.

    The width stays.
    """
    if isinstance(x, Tensor):
        return change(x)
    first = x.change
    both = change if first is None else lambda rows: change(first(rows))
    return replace(x, change=both)
