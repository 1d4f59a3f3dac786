"""Write a run's results: results.json, the encoder, figures, and the tables on the screen."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from mic.config.schema import Config
from mic.data.datamodule import PairDataModule
from mic.encoder.encoder import Encoder
from mic.evaluation import scoring
from mic.evaluation.scoring import Results
from mic.evaluation.tasks.tasks import Task, fingerprints
from mic.metrics.geometry import cross_correlation
from mic.report import figures
from mic.report.tables import rich_table
from mic.tracking import run_directory
from mic.tracking.run_directory import git_commit, package_versions
from mic.train.callbacks import Throughput
from mic.train.callbacks.geometry import nearest_width


def results_meta(
    config: Config,
    data: PairDataModule,
    baselines: Mapping[str, Results],
    trained_on: Mapping[str, int | None],
    speed: Throughput,
    seconds: float,
    segments: int,
) -> dict[str, Any]:
    """The `meta` of results.json: data, settings and software of the run, and its baselines."""
    return {
        "baselines": baselines,
        "seed": config.seed,
        "steps": config.trainer.max_steps,
        "pairs_per_second": speed.pairs_per_second,
        "seconds": seconds,
        "segments": segments,
        "rows": data.rows,
        "skipped_rows": data.skipped,
        "texts_trained_on": trained_on,
        "data": {
            **data.hashes,
            **fingerprints(config.evaluation.validation),
            **fingerprints(config.evaluation.test),
        },
        "versions": package_versions(),
        "git_commit": git_commit(),
    }


def load_results(folder: Path) -> dict[str, Any]:
    """The content of results.json in a finished run's folder."""
    file = folder / run_directory.RESULTS
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return results


def draw_figures(
    folder: Path,
    tasks: Sequence[Task],
    methods: Mapping[str, Results],
    spreads: Mapping[str, Tensor],
    dims: Sequence[int],
    map_dim: int,
) -> None:
    """Draw the run's figures.

    `spreads` are the covariances [dim, dim] of the last task's texts, untrained and trained.
    """
    figures_folder = folder / run_directory.FIGURES
    figures_folder.mkdir(exist_ok=True)
    last = tasks[-1]
    count = len(last.texts)
    command = f"made by `mic train {folder / 'config.yaml'}`"
    headlines = {task.name: task.headline for task in tasks}
    figures.save(
        figures.quality(headlines, methods, f"run {folder.name}; {command}"),
        figures_folder / "quality.png",
    )
    texts = f"{count:,} texts of {last.name}; {command}"
    variances = {state: spread.diagonal() for state, spread in spreads.items()}
    of = "variance of each coordinate of unit vectors over its mean"
    figures.save(
        figures.variance(variances, dims, f"{of}; {texts}"), figures_folder / "variance.png"
    )
    width = nearest_width(dims, map_dim)
    if width is not None:
        maps = {state: cross_correlation(spread, width) for state, spread in spreads.items()}
        figures.save(
            figures.correlation_map(maps, dims, count, texts),
            figures_folder / "cross_correlation.png",
        )


def replace_encoder(encoder: Encoder, folder: Path, max_length: int | None = None) -> None:
    """Save an encoder into a folder that may hold that of an earlier end of the run."""
    new, old = (folder.with_name(f".{folder.name}.{age}") for age in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    encoder.save(new, max_length)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def print_results(
    folder: Path,
    tasks: Sequence[Task],
    methods: Mapping[str, Results],
    speed: Throughput,
    dropped: Counter[str] | None,
) -> None:
    """Print the tables and where everything is."""
    console = Console()
    for task in tasks:
        console.print(rich_table(scoring.results_table(task, methods)))
    if dropped:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in dropped.most_common())
        console.print(f"{dropped.total():,} rows were skipped: {reasons}.", highlight=False)
    console.print(
        f"{speed.pairs:,} pairs at {speed.pairs_per_second:.0f} pairs/s. "
        f"Figures, results.json and the encoder are in {folder}; use it:\n"
        f"  mic encode {folder} --dim 64 < sentences.txt\n"
        f"  mic report {folder}",
        highlight=False,
        soft_wrap=True,
    )
