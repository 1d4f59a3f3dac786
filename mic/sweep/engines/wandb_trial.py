"""A trial that W&B's agent starts: where its run is kept.

The agent hands the values over as arguments and says in the environment which sweep and run they
are of. So `wandb.config`, which rank 0 alone would have, is read by nobody.
"""

import os
from dataclasses import replace
from pathlib import Path

from mic.config.schema import Config


def placed(config: Config) -> Config:
    """The config as it is, or under an agent with the run in RUNS/<sweep id>/<run id>.

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
