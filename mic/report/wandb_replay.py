"""Replay a run's files into one W&B run: `mic sync RUN`.

metrics.jsonl is the truth, so what was resumed, kept offline or half sent comes out whole. W&B has
no way to replace a run: history only grows, a deleted id is never free again, and a second run of
the same id mixes with the first. So the replay takes the run's own id where W&B knows of no such
run (resume="never" leaves that decision to W&B), and otherwise the next of id-2, id-3, ..., all
of it anew: nothing is there twice, and the older run can be deleted.
"""

import json
import os
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mic.config.schema import Config
from mic.console import bar
from mic.errors import InputError, RunError
from mic.files import write_json
from mic.report import figures
from mic.tracking import run_directory
from mic.tracking.snapshots import Snapshot, histograms, read_snapshots
from mic.tracking.wandb.mirror import (
    STEP,
    error_line,
    finish_wandb_run,
    init_wandb_run,
    wandb_histogram,
    wandb_image,
)
from mic.tracking.wandb.server import dead_server, missing_key

PATIENCE = (60.0, 600.0)  # seconds for an answer and for the last upload: nobody trains


def sync(folder: Path) -> str:
    """Replay a run into W&B; its address there, or the folder of an offline run.

    The latter with WANDB_MODE=offline. Raises InputError for what is no run or has no key, and
    RunError where W&B fails.
    """
    if not run_directory.is_run(folder) or not (folder / run_directory.METRICS).is_file():
        raise InputError(f"{folder}: no run; name a folder that `mic train` made, with its log")
    config = run_directory.read_config(folder)
    known = run_directory.run_info(folder)
    lines = merge_steps(folder / run_directory.METRICS)
    pictures = {snapshot.step: snapshot for snapshot in read_snapshots(folder)}
    offline = os.environ.get("WANDB_MODE") == "offline"
    if not offline and (reason := missing_key()):
        raise InputError(f"W&B: {reason}")
    if not offline and (reason := dead_server()):
        raise RunError(f"W&B: {reason}; try again later")
    try:
        run = open_new_run(config, folder, known, offline)
        steps = sorted({*lines, *pictures})
        with bar("replaying", len(steps)) as advance, TemporaryDirectory() as place:
            for step in steps:
                drawn = snapshot_values(pictures[step], Path(place)) if step in pictures else {}
                run.log({**lines.get(step, {}), **drawn, STEP: step})
                advance(1)
        address = str(run.settings.sync_dir if offline else run.url)
        finish_wandb_run(run, folder, steps[-1] if steps else 0)
    except Exception as error:  # W&B's are of many kinds
        raise RunError(f"W&B: {error_line(error)}; try again later: mic sync {folder}") from error
    if not offline:
        synced = [*known.get("synced", ()), run.id]
        write_json(folder / run_directory.RUN_INFO, {**known, "synced": synced})
    return address


def merge_steps(file: Path) -> dict[int, dict[str, float]]:
    """The values of each step; of one written twice, as by a resumed run, the last.

    A last line without an end is of a run that was killed while it wrote, and left out.
    """
    steps: dict[int, dict[str, float]] = {}
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            values = json.loads(line)
            step = int(values.pop("step"))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InputError(f"{file}: line {number} is not of mic; remove it") from None
        nan = float("nan")
        steps.setdefault(step, {}).update(
            {name: nan if value is None else value for name, value in values.items()}
        )
    return steps


def open_new_run(config: Config, folder: Path, known: Mapping[str, Any], offline: bool) -> Any:
    """A W&B run that is new, of the run's own id if that is free."""
    import wandb

    if offline:
        return init_wandb_run(config, folder, known["id"], "offline", patience=PATIENCE)
    for run_id in run_ids(known["id"]):
        if run_id in known.get("synced", ()):
            continue
        try:
            return init_wandb_run(config, folder, run_id, "online", "never", PATIENCE)
        except wandb.errors.UsageError as error:
            if "already exists" not in str(error):
                raise
        except wandb.errors.CommError as error:
            if "deleted" not in str(error):  # W&B never gives such an id again
                raise
    raise AssertionError("there is always another id")


def run_ids(first: str) -> Iterator[str]:
    yield first
    for number in count(2):
        yield f"{first}-{number}"


def snapshot_values(snapshot: Snapshot, place: Path) -> dict[str, Any]:
    """What a validation's callbacks show: spectra, variances, and the map of one width."""
    values = {
        name: wandb_histogram(counts) for name, counts in histograms(snapshot).items() if counts
    }
    if snapshot.correlation is not None:
        file = place / f"{snapshot.step}.png"
        figures.save(figures.snapshot_map(snapshot), file)
        values[f"correlation/map/d{snapshot.map_dim}"] = wandb_image(file)
    return values
