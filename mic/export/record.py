"""The record of an export: what the terminal and the model card say about it."""

from typing import NamedTuple

from mic.export.parity import Parity
from mic.export.quality import Quality
from mic.export.source import ModelSource


class ExportRecord(NamedTuple):
    """What is known of an exported folder; `dims` are its widths, its full one last.

    `onnx` is the largest difference of the ONNX graph's embeddings, None without a graph.
    """

    source: ModelSource
    dim: int | None
    dims: tuple[int, ...]
    dtype: str
    parity: Parity
    onnx: float | None
    quality: list[Quality]
    prompts: dict[str, str]
    repo: str | None
