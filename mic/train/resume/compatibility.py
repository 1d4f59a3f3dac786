"""Decide how a run starts: anew, from a checkpoint, or not at all, and refuse changed settings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mic.config.diff import changed_values, in_section, may_change
from mic.config.schema import Config
from mic.console import notice
from mic.errors import InputError
from mic.tracking import run_directory
from mic.train.resume.checkpoint_files import CHECKPOINTS, Checkpoint, newest


class Start(NamedTuple):
    """How a run begins: anew, from a checkpoint, or not at all, since it is finished.

    `changed` has the old and the new value of every key whose value differs.
    """

    checkpoint: Checkpoint | None = None
    finished: bool = False
    changed: dict[str, list[Any]] = {}  # noqa: RUF012  # never written to


def examine(config: Config, overwrite: bool, allow_change: Sequence[str] = ()) -> Start:
    """How the run in its folder starts; with `overwrite` it starts anew.

    Raises InputError when it holds something else than this run: another program's files, or a run
    with other settings, which are named. `allow_change` lists the keys or sections that may differ.
    """
    folder = run_directory.path_of(config)
    run_directory.refuse_other_folder(folder)
    if overwrite or not (folder / "config.yaml").is_file():
        return Start()
    done = steps_done(folder)
    changed = changed_values(run_directory.read_config(folder), config)
    wrong = {
        key: values
        for key, values in changed.items()
        if not (
            may_change(key, values) or any(in_section(key, section) for section in allow_change)
        )
    }
    if wrong:
        state = "an unfinished run" if done is None else "a finished run"
        raise InputError(f"{folder}: holds {state} {refusal(wrong)}")
    if done is not None and done >= config.trainer.max_steps:
        return Start(None, True, changed)
    checkpoint = newest(folder / CHECKPOINTS)
    if checkpoint is None and done is not None:
        raise InputError(
            f"trainer.max_steps={config.trainer.max_steps}: {folder} is finished after {done} "
            "steps, and its checkpoints are gone; add --overwrite to begin anew"
        )
    if checkpoint is None:
        notice(f"{folder}: an unfinished run without a checkpoint: begun anew")
    return Start(checkpoint, False, changed)


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
