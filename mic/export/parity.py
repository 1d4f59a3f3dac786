"""Compare an exported folder with the encoder, read by sentence-transformers if installed."""

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
LARGEST = {"fp32": 1e-5, "fp16": 2e-2}  # difference of a coordinate, of embeddings of length 1


class Parity(NamedTuple):
    """The largest difference of any coordinate at each width; `reader` names the library."""

    reader: str
    largest: dict[int, float]


def probe_embeddings(encoder: Encoder, dims: Sequence[int]) -> dict[int, np.ndarray]:
    """The encoder's embeddings of the probes at every width, [probe, dim]."""
    return {dim: encoder.encode(PROBES, dim=dim) for dim in dims}


def compare_export(folder: Path, expected: dict[int, np.ndarray], dtype: str) -> Parity:
    """Read the folder and compare its embeddings of the probes with those of the encoder.

    At the folder's full width embeddings are taken as they are; below, cut and normalised again.

    Raises RunError when they differ by more than rounding.
    """
    stock = importlib.util.find_spec("sentence_transformers") is not None
    reader = f"{STOCK} {version(STOCK)}" if stock else "mic"
    try:
        actual = (
            encode_with_sentence_transformers(folder, [*expected])
            if stock
            else encode_with_mic(folder, [*expected])
        )
    except Exception as error:  # whatever it is, the folder must not be exported
        reason = " ".join(str(error).split())[:160]
        raise RunError(
            f"{folder.name}: {reader} does not read it: {reason}; nothing was exported"
        ) from error
    largest = {dim: float(np.abs(expected[dim] - actual[dim]).max()) for dim in expected}
    worst = max(largest, key=lambda dim: largest[dim])
    if not largest[worst] <= LARGEST[dtype]:  # NaN is refused, too
        raise RunError(
            f"{folder.name}: {reader} gives other embeddings than mic's encoder: they differ by "
            f"{largest[worst]:.1e} at {worst} dimensions, and {LARGEST[dtype]:.0e} is rounding; "
            "nothing was exported"
        )
    return Parity(reader, largest)


def encode_with_sentence_transformers(folder: Path, dims: Sequence[int]) -> dict[int, np.ndarray]:
    from sentence_transformers import SentenceTransformer

    from mic.encoder.pretrained import no_progress_bars

    with no_progress_bars():
        model = SentenceTransformer(str(folder), device="cpu")
    texts, full = list(PROBES), max(dims)
    embeddings = {
        dim: model.encode(texts, truncate_dim=dim, normalize_embeddings=True, prompt="")
        for dim in dims
    }
    embeddings[full] = model.encode(texts, prompt="")
    return embeddings


def encode_with_mic(folder: Path, dims: Sequence[int]) -> dict[int, np.ndarray]:
    encoder = Encoder.from_pretrained(folder)
    return {dim: encoder.encode(PROBES, dim=dim) for dim in dims}
