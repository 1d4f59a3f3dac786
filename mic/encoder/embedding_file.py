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

    `rows` is a slice or a list of numbers; what it gives is a tensor of one's own. Row i is row
    `places[i]` of the file, which holds `stored` float32 a row and nothing else. `change` is done
    to what is read, and may make `given` numbers of them.
    """

    file: Path
    stored: int
    places: Int64[np.ndarray, " rows"]
    change: Change | None = None
    given: int | None = None

    @property
    def width(self) -> int:
        return self.stored if self.given is None else self.given

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.places), self.width

    def __getitem__(self, rows: slice | Sequence[int]) -> Float[Tensor, "some dim"]:
        wanted = self.places[rows]
        if not len(wanted):  # an empty file cannot be mapped
            return torch.empty(0, self.width)
        # mapped anew each time: what was read before is no longer part of the process
        mapped = np.memmap(self.file, NUMBER, "r").reshape(-1, self.stored)
        found = torch.from_numpy(mapped[wanted].astype(np.float32, copy=False))
        return found if self.change is None else self.change(found)


Vectors = Float[Tensor, "rows dim"] | Embeddings  # as what is asked for some rows takes them


def changed(x: Vectors, change: Change) -> Vectors:
    """What a change of rows, as a projection, makes of them: of a file's rows, once they are read.

    The width stays.
    """
    if isinstance(x, Tensor):
        return change(x)
    before = x.change
    both = change if before is None else lambda rows: change(before(rows))
    return replace(x, change=both)
