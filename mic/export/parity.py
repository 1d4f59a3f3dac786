"""Compare an exported folder, read by sentence-transformers, with what it was made of."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32

from mic.encoder.encoder import Encoder
from mic.errors import RunError
from mic.nested import prefix, unit

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
    "",
    "a long text that goes on and on, beyond what a model keeps of it, " * 40,
)
LARGEST = {"fp32": 1e-5, "fp16": 2e-2}  # difference of a coordinate, of embeddings of length 1


class Parity(NamedTuple):
    """The largest difference of any coordinate at each width.

    `reader` names the library that read the folder, `reference` what it was compared with.
    """

    reader: str
    reference: str
    largest: dict[int, float]


Vectors = dict[
    str, Float32[np.ndarray, "probes dim"]
]  # by the prompt that stands before the probes


def source_vectors(folder: Path, trust_remote_code: bool = False) -> Vectors:
    """The full embeddings of the probes by a model as sentence-transformers itself reads it."""
    return stock_vectors(read_stock(folder, trust_remote_code))


def encoder_vectors(encoder: Encoder) -> Vectors:
    """The encoder's full embeddings of the probes, with each of its prompts and without any."""
    prompts = ["", *encoder.prompts.values()]
    return {prompt: encoder.embed(PROBES, prompt=prompt).numpy() for prompt in prompts}


def compare_export(
    folder: Path,
    expected: Vectors,
    dims: Sequence[int],
    dtype: str,
    reference: str,
    *,
    of_length_1: bool = True,
    trust_remote_code: bool = False,
) -> Parity:
    """Read the folder with sentence-transformers and compare its embeddings of the probes.

    `expected` are the full ones, compared at every width at length 1; at the full width the
    folder's must have that length as they come, if `of_length_1`. `reference` says in words whose
    `expected` are.

    Raises RunError when they differ by more than rounding, or the folder lacks a prompt.
    """
    reader = f"{STOCK} {version(STOCK)}"
    try:
        model = read_stock(folder, trust_remote_code)
        actual = stock_vectors(model)
    except Exception as error:  # whatever it is, the folder must not be exported
        reason = " ".join(str(error).split())[:160]
        raise RunError(
            f"{folder.name}: {reader} does not read it: {reason}; nothing was exported"
        ) from error
    if missing := expected.keys() - actual.keys():
        raise RunError(
            f"{folder.name}: the prompt {min(missing)!r} is not in it; nothing was exported"
        )
    full, width = max(dims), actual[""].shape[1]
    if width != full:
        raise RunError(
            f"{folder.name}: {reader} gives other embeddings than {reference}: of {width} "
            f"dimensions, not {full}; nothing was exported"
        )
    largest = {
        dim: max(
            float(np.abs(cut(expected[prompt], dim) - cut(actual[prompt], dim)).max())
            for prompt in expected
        )
        for dim in dims
    }
    for prompt, vectors in expected.items() if of_length_1 else ():
        difference = float(np.abs(cut(vectors, full) - actual[prompt]).max())
        largest[full] = max(largest[full], difference)
    worst = max(largest, key=lambda dim: largest[dim])
    if not largest[worst] <= LARGEST[dtype]:  # NaN is refused, too
        raise RunError(
            f"{folder.name}: {reader} gives other embeddings than {reference}: they differ by "
            f"{largest[worst]:.1e} at {worst} dimensions, and {LARGEST[dtype]:.0e} is rounding; "
            "nothing was exported"
        )
    return Parity(reader, reference, largest)


def read_stock(folder: Path, trust_remote_code: bool) -> Any:
    """A folder as sentence-transformers reads it."""
    from sentence_transformers import SentenceTransformer

    from mic.encoder.loading import no_progress_bars

    with no_progress_bars():
        return SentenceTransformer(
            str(folder),
            device="cpu",
            trust_remote_code=trust_remote_code,
            model_kwargs={"dtype": torch.float32},
        )


def stock_vectors(model: Any) -> Vectors:
    """The embeddings of the probes by sentence-transformers, by each prompt of the model."""
    prompts = ["", *filter(None, model.prompts.values())]
    return {prompt: model.encode(list(PROBES), prompt=prompt) for prompt in prompts}


def cut(vectors: Float32[np.ndarray, "texts full"], dim: int) -> Float32[np.ndarray, "texts dim"]:
    """The first `dim` dimensions at length 1."""
    rows: np.ndarray = unit(prefix(torch.from_numpy(vectors), dim)).numpy()
    return rows
