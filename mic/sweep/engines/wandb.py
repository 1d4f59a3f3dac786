"""Register a sweep file at W&B, whose agents on any machine then run its trials."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from mic.config.schema import Config
from mic.console import notice
from mic.errors import InputError, RunError
from mic.sweep.folder import write_sweep
from mic.sweep.sweep_file import MACRO, Sweep, parse_command
from mic.tracking.wandb.mirror import error_line
from mic.tracking.wandb.server import dead_server, missing_key

METHODS = ("grid", "random", "bayes")
# an agent that gets a signal forwards it to its trial, and waits until it has saved itself
AGENT = "wandb agent --forward-signals --term-timeout 300"
OR_LOCAL = "or leave out --engine wandb"


def register_sweep(sweep: Sweep) -> str:
    """Register the sweep at W&B; returns the command of an agent for it.

    The sweep file and the base config are written into runs/ID, where the agents' runs will be.

    Raises InputError for what W&B cannot do and where there is no key, RunError when W&B fails.
    """
    content = wandb_content(sweep)
    if reason := missing_key():
        raise InputError(f"W&B: {reason}, {OR_LOCAL}")
    if reason := dead_server():
        raise RunError(f"W&B: {reason}; try again later")
    import wandb

    logging = sweep.base.logging
    project, entity = content.get("project", logging.project), content.get("entity", logging.entity)
    with capture_output() as output:
        try:
            number = wandb.sweep(content, entity=entity, project=project)
        except Exception as error:  # W&B's are of many kinds
            raise RunError(f"W&B: {sweep.file}: {error_line(error)}") from error
        # where the server put it, which for no entity is the key's own
        place = [os.environ.get(name) for name in ("WANDB_ENTITY", "WANDB_PROJECT")]
    for line in output.getvalue().splitlines():
        _, warning, text = line.partition("WARNING")
        if warning and text.strip():
            notice(f"W&B: {text.strip()}")
    write_sweep(sweep, Path(sweep.base.runs) / number)
    return f"{AGENT} {'/'.join(filter(None, [*place, number]))}"


def wandb_content(sweep: Sweep) -> dict[str, Any]:
    """The sweep file's content as it is sent to W&B, with mic's own keys written in W&B's way.

    Raises InputError for what W&B cannot do.
    """
    refuse_unsupported(sweep)
    content = dict(sweep.content)
    if "seeds" in content:
        axis = {"seed": {"values": content.pop("seeds")}}
        content["parameters"] = {**content["parameters"], **axis}
    if "metrics" in content:
        (content["metric"],) = content.pop("metrics")
    content["parameters"] = {
        key: wandb_parameter(entry) for key, entry in content["parameters"].items()
    }
    words = content["command"]
    if parse_command(words, str(sweep.file))[1:] != (sweep.config, sweep.overrides):  # another base
        first = words[: words.index("train") + 1]
        content["command"] = [*first, sweep.config, *sweep.overrides, MACRO]
    return content


def refuse_unsupported(sweep: Sweep) -> None:
    """Raise an InputError for what the local engine can do, and W&B cannot."""
    methods = " or ".join(METHODS)
    if len(sweep.metrics) > 1:
        names = ", ".join(metric.name for metric in sweep.metrics)
        raise InputError(
            f"{sweep.file}: metrics {names}: W&B goes by one; give one `metric`, {OR_LOCAL}"
        )
    if sweep.method not in METHODS:
        raise InputError(
            f"{sweep.file}: method {sweep.method}: W&B does {methods}; take one of them, {OR_LOCAL}"
        )
    if sweep.early_termination is not None and sweep.early_termination.kind != "hyperband":
        raise InputError(
            f"{sweep.file}: early_terminate {sweep.early_termination.kind}: W&B does type: "
            f"hyperband; take it, {OR_LOCAL}"
        )


def wandb_parameter(entry: dict[str, Any]) -> dict[str, Any]:
    """A parameter as W&B reads it, which guesses no distribution between 1 and 2.5.

    >>> wandb_parameter({"min": 1, "max": 2.5}), wandb_parameter({"min": 1, "max": 2})
    ({'min': 1, 'max': 2.5, 'distribution': 'uniform'}, {'min': 1, 'max': 2})
    """
    if "distribution" in entry or not {"min", "max"} <= entry.keys():
        return entry
    mixed = type(entry["min"]) is not type(entry["max"])
    return {**entry, "distribution": "uniform"} if mixed else entry


@contextmanager
def capture_output() -> Iterator[io.StringIO]:
    """Capture the output of W&B within the block; restore the environment at its end."""
    import wandb

    names = ("WANDB_ENTITY", "WANDB_PROJECT")
    before = {name: os.environ.get(name) for name in names}
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        wandb.teardown()  # silent until here
        wandb.setup()
        try:
            yield output
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def place_trial(config: Config) -> Config:
    """The config as it is, or under an agent with the run in RUNS/<sweep id>/<run id>.

    The agent passes the values as arguments and names its sweep and run in the environment, so
    `wandb.config`, which rank 0 alone would have, is not read.

    A run that comes back under its id, as W&B has it after a preemption, is found there again. What
    is in its place stays there: ranks read the resolved config in the same environment. Only W&B
    knows the metric of an agent's run, so it goes there even where the config logs nothing;
    WANDB_MODE=offline or disabled keeps it away.
    """
    sweep, run = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
    if not sweep or not run:
        return config
    runs = Path(config.runs)
    if (runs.name, config.name) != (sweep, run):
        runs /= sweep
    logging = config.logging
    if logging.wandb == "disabled":
        logging = replace(logging, wandb="online")
    return replace(config, runs=str(runs), name=run, logging=logging)
