"""`mic train` and `mic resume`: run the training of a config, or continue a run."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, get_args, get_origin

from mic.cli.arguments import silence_libraries
from mic.config.loading import keys, load, to_yaml
from mic.config.schema import Config
from mic.distributed.launcher import start_ranks, starts_ranks
from mic.errors import InputError


def add_train(actions: Any) -> None:
    train = actions.add_parser(
        "train",
        help="train an encoder as a config says",
        description="Train an encoder as CONFIG says; key=value overrides come last.",
        epilog=describe_keys(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("config", metavar="CONFIG", help="a YAML file")
    train.add_argument("overrides", metavar="key=value", nargs="*", help="one of the keys below")
    train.add_argument(
        "--print-config", action="store_true", help="show the resolved YAML and stop"
    )
    train.add_argument("--overwrite", action="store_true", help="replace a run of the same name")
    add_allow_change(train)
    train.set_defaults(run=run_train)


def add_resume(actions: Any) -> None:
    resume = actions.add_parser(
        "resume",
        help="continue an interrupted run",
        description="Continue a run at its newest checkpoint, as `mic train` of its config does.",
    )
    resume.add_argument("folder", metavar="RUN", type=Path, help="a run directory")
    resume.add_argument(
        "overrides", metavar="key=value", nargs="*", help="as trainer.max_steps=200"
    )
    add_allow_change(resume)
    resume.set_defaults(run=run_resume)


def add_allow_change(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-change",
        metavar="KEY",
        action="append",
        default=[],
        help="continue the run although this setting, or section, has changed; may be repeated",
    )


def run_train(options: argparse.Namespace) -> None:
    config = load(options.config, *options.overrides)
    if os.environ.get("WANDB_SWEEP_ID"):  # else Optuna is not imported
        from mic.sweep.engines.wandb import place_trial

        config = place_trial(config)
    if options.print_config:
        print(to_yaml(config), end="")
    else:
        train_or_start_ranks(config, options.overwrite, options.allow_change)


def run_resume(options: argparse.Namespace) -> None:
    from mic.tracking.run_directory import read_config

    folder: Path = options.folder
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no run; it has no config.yaml")
    absolute = folder.absolute()  # the run may have been moved since
    places = (f"name={json.dumps(absolute.name)}", f"runs={json.dumps(str(absolute.parent))}")
    if folder.name and not folder.is_absolute():
        places = (f"name={json.dumps(folder.name)}", f"runs={json.dumps(str(folder.parent))}")
    config = read_config(folder, *options.overrides, *places)
    train_or_start_ranks(config, overwrite=False, allow_change=options.allow_change)


def train_or_start_ranks(config: Config, overwrite: bool, allow_change: Sequence[str]) -> None:
    """Train in this process, or start `trainer.devices` processes that do."""
    if starts_ranks(config):  # before ten seconds of imports
        start_ranks(config, overwrite, allow_change)
        return
    silence_libraries()
    from mic.train.run import train

    train(config, overwrite, allow_change)


def describe_keys() -> str:
    """Every config key with its type, default and meaning, from the dataclasses."""
    lines = ["keys (type, default): meaning"]
    for name, kind, item in keys(Config):
        default = item.default if item.default is not MISSING else item.default_factory()
        shown = {"???": "required"}.get(str(default), str(default))
        lines.append(f"  {name} ({type_name(kind)}, {shown})\n      {item.metadata['help']}")
    return "\n".join(lines)


def type_name(kind: Any) -> str:
    """A type as a user writes it.

    >>> type_name(list[int | str]), type_name(int | None), type_name(float)
    ('list of int or str', 'int or null', 'float')
    """
    inner = get_args(kind)
    if kind is type(None):
        return "null"
    if get_origin(kind) is list:
        return f"list of {type_name(inner[0])}"
    if inner:
        return " or ".join(
            type_name(choice) if isinstance(choice, type) else str(choice) for choice in inner
        )
    return str(kind.__name__)
