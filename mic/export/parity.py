"""Whether an exported folder gives our embeddings, read by sentence-transformers if it is there."""

import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mic.encoder.encoder import Encoder
from mic.errors import RunError

STOCK = "sentence-transformers"
PROBES = (
    "A cat sleeps on the warm stones.",
    "cat",
    "How do I sort an array by several keys?",
    "Stocks fell by 3.5 % on Tuesday, the largest loss since 2008.",
    "Zwei Männer reparieren ein Dach in München.",
    "def mean(values): return sum(values) / len(values)",
    "  Spaces   before,\tbetween and after.  ",
    "EVERY LETTER IS A CAPITAL!",
    "日本語の短い文。",
    "café, naïve, façade",
    "?",
    "a long text that goes on and on, beyond what a model keeps of it, " * 40,
)
LARGEST = {"fp32": 1e-5, "fp16": 2e-2}  # of a coordinate's difference, of vectors of length 1


class Parity(NamedTuple):
    """The largest difference of any coordinate at each width, and who read the folder."""

    reader: str
    largest: dict[int, float]


def expected(encoder: Encoder, dims: Sequence[int]) -> dict[int, np.ndarray]:
    """Our own embeddings of the probes at every width."""
    return {dim: encoder.encode(PROBES, dim=dim) for dim in dims}


def compare(folder: Path, ours: dict[int, np.ndarray], dtype: str) -> Parity:
    """Read the folder anew and compare its embeddings of the probes with ours.

    At the folder's own width vectors come as they are; below, cut and normalised afterwards.

    Raises RunError when they differ by more than rounding.
    """
    stock = importlib.util.find_spec("sentence_transformers") is not None
    reader = f"{STOCK} {version(STOCK)}" if stock else "mic"
    try:
        theirs = by_stock(folder, [*ours]) if stock else by_mic(folder, [*ours])
    except Exception as error:  # of whatever kind: the folder is not to be given away
        reason = " ".join(str(error).split())[:160]
        raise RunError(
            f"{folder.name}: {reader} does not read it: {reason}; nothing was exported"
        ) from error
    largest = {dim: float(np.abs(ours[dim] - theirs[dim]).max()) for dim in ours}
    worst = max(largest, key=lambda dim: largest[dim])
    if not largest[worst] <= LARGEST[dtype]:  # NaN is refused, too
        raise RunError(
            f"{folder.name}: {reader} reads other embeddings than ours: they differ by "
            f"{largest[worst]:.1e} at {worst} numbers, and {LARGEST[dtype]:.0e} is rounding; "
            "nothing was exported"
        )
    return Parity(reader, largest)


def by_stock(folder: Path, dims: Sequence[int]) -> dict[int, np.ndarray]:
    from sentence_transformers import SentenceTransformer

    from mic.encoder.pretrained import no_progress_bars

    with no_progress_bars():
        model = SentenceTransformer(str(folder), device="cpu")
    texts, full = list(PROBES), max(dims)
    found = {
        dim: model.encode(texts, truncate_dim=dim, normalize_embeddings=True, prompt="")
        for dim in dims
    }
    found[full] = model.encode(texts, prompt="")
    return found


def by_mic(folder: Path, dims: Sequence[int]) -> dict[int, np.ndarray]:
    encoder = Encoder.from_pretrained(folder)
    return {dim: encoder.encode(PROBES, dim=dim) for dim in dims}
