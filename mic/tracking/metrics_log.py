"""Read metrics.jsonl, the values that a run has logged so far, as a series for each name."""

import json
from math import nan
from pathlib import Path
from typing import Any

from mic.errors import InputError

Series = dict[int, float]  # step -> value; NaN where null was logged


def read_metrics(file: Path) -> dict[str, Series]:
    """Every logged name with its values by step; of a step that was logged twice, the last value.

    A last line without a line end is still being written, and left out. Raises InputError for a
    line that is no log line.
    """
    if not file.is_file():
        return {}
    metrics: dict[str, Series] = {}
    *lines, _ = file.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            values: Any = json.loads(line)
            step = int(values.pop("step") or 0)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InputError(f"{file}: line {number} is no log line; remove it") from None
        values.pop("epoch", None)
        for name, value in values.items():
            metrics.setdefault(name, {})[step] = nan if value is None else float(value)
    return {name: dict(sorted(series.items())) for name, series in metrics.items()}
