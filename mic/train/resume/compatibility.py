"""Whether a run directory holds a run to go on with, and what may be different when it does."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mic.config.diff import differences, harmless, within
from mic.config.loading import load
from mic.config.schema import Config
from mic.console import notice
from mic.errors import InputError
from mic.tracking import run_directory
from mic.train.resume.checkpoint_files import CHECKPOINTS, Checkpoint, newest


class Start(NamedTuple):
    """How a run begins: anew, at a checkpoint, or not at all, since it is finished.

    `changed` has the old and the new value of every key that is not as it was.
    """

    checkpoint: Checkpoint | None = None
    finished: bool = False
    changed: dict[str, list[Any]] = {}  # noqa: RUF012  # never written to


def examine(config: Config, overwrite: bool, allow_change: Sequence[str] = ()) -> Start:
    """Look at the run's folder, which `overwrite` means to replace.

    Raises InputError when it holds something else than this run: another program's files, or a run
    with other settings, each of which is named. `allow_change` has the keys, or the sections, that
    may be different.
    """
    folder = run_directory.path_of(config)
    run_directory.refuse_foreign(folder)
    if overwrite or not (folder / "config.yaml").is_file():
        return Start()
    done = steps_done(folder)
    changed = differences(load(folder / "config.yaml"), config)
    wrong = {
        key: values
        for key, values in changed.items()
        if not (harmless(key, values) or any(within(key, one) for one in allow_change))
    }
    if wrong:
        state = "an unfinished run" if done is None else "a finished run"
        raise InputError(f"{folder}: holds {state} {refusal(wrong)}")
    if done is not None and done >= config.trainer.max_steps:
        return Start(None, True, changed)
    found = newest(folder / CHECKPOINTS)
    if found is None and done is not None:
        raise InputError(
            f"trainer.max_steps={config.trainer.max_steps}: {folder} is finished after {done} "
            "steps, and its checkpoints are gone; add --overwrite to begin anew"
        )
    if found is None:
        notice(f"{folder}: an unfinished run without a checkpoint: begun anew")
    return Start(found, False, changed)


def steps_done(folder: Path) -> int | None:
    """The steps of a finished run; None for one that is not.

    Raises InputError for results that cannot be read.
    """
    file = folder / run_directory.RESULTS
    if not file.is_file():
        return None
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["meta"]["steps"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file}: not the results of a run; remove it, or --overwrite") from None


def refusal(wrong: dict[str, list[Any]]) -> str:
    listed = "; ".join(f"{key} was {old}, is {new}" for key, (old, new) in wrong.items())
    flags = " ".join(f"--allow-change {key}" for key in wrong)
    return (
        f"with other settings: {listed}. Choose another name=..., add --overwrite to begin anew, "
        f"or go on all the same with {flags}"
    )
