"""All that is told of an export, on the terminal and in its card."""

from typing import Any, NamedTuple

from mic.export.parity import Parity
from mic.export.quality import Quality
from mic.export.source import Source


class Facts(NamedTuple):
    """All that a card tells; `dims` are the widths looked at, the folder's own last."""

    source: Source
    dim: int | None
    dims: tuple[int, ...]
    dtype: str
    parity: Parity
    onnx: float | None
    quality: list[Quality]
    prompts: dict[str, Any]
    repo: str | None
