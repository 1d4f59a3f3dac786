"""Read run directories: whatever a run has written so far, also while it trains."""

import json
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

from mic.config.schema import Config
from mic.errors import InputError
from mic.tracking import run_directory
from mic.tracking.metrics_log import Series, read_metrics
from mic.tracking.snapshots import Snapshot, read_snapshots, width_in_name

Scores = dict[str, dict[str, dict[int, float]]]  # task -> metric -> width -> value


class Run(NamedTuple):
    """One run; `methods` holds the scores of its baselines and of itself, once it is finished."""

    folder: Path
    config: Config
    metrics: dict[str, Series]
    snapshots: list[Snapshot]
    meta: dict[str, Any]
    methods: dict[str, Scores]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def step(self) -> int:
        """The last step that anything was logged at."""
        return max((step for series in self.metrics.values() for step in series), default=0)

    @property
    def finished(self) -> bool:
        return bool(self.methods)


def read_run(folder: Path, geometry: bool = True) -> Run:
    """Read a run's folder; its spectra and correlation maps only with `geometry`.

    Raises InputError where there is no run, or a damaged file.
    """
    if not run_directory.is_run(folder):
        raise InputError(f"{folder}: no run of mic; give the folder that `mic train` wrote")
    meta, methods = read_results(folder / run_directory.RESULTS)
    return Run(
        folder,
        run_directory.read_config(folder),
        read_metrics(folder / run_directory.METRICS),
        read_snapshots(folder) if geometry else [],
        meta,
        methods,
    )


def read_results(file: Path) -> tuple[dict[str, Any], dict[str, Scores]]:
    """The meta data of results.json and the scores of every method; empty without the file."""
    if not file.is_file():
        return {}, {}
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        meta: dict[str, Any] = content.pop("meta")
        methods = {**meta.pop("baselines"), OWN: content}
        return meta, {name: parse_scores(tasks) for name, tasks in methods.items()}
    except (ValueError, KeyError, AttributeError, TypeError):
        raise InputError(f"{file}: not the results of a run; remove it, or train again") from None


OWN = ""  # the trained model's name among the methods of its results


def parse_scores(content: dict[str, dict[str, dict[str, float | None]]]) -> Scores:
    """Scores from JSON: widths as numbers, NaN for null."""
    return {
        task: {
            metric: {int(dim): nan if value is None else value for dim, value in values.items()}
            for metric, values in metrics.items()
        }
        for task, metrics in content.items()
    }


def logged_widths(runs: Sequence[Run], above: str) -> list[int]:
    """The widths that `above`/d<width> was logged at, in any run."""
    names = {name for run in runs for name in run.metrics if name.startswith(f"{above}/d")}
    return sorted(
        width_in_name(name) for name in names if name.removeprefix(f"{above}/d").isdigit()
    )
