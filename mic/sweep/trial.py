"""Start and end a trial's processes, read what it has measured, and decide on its early end."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path

from mic.config.loading import to_yaml
from mic.config.schema import Config
from mic.distributed.launcher import lifeline
from mic.files import write_text
from mic.sweep.queue.queue import Queue
from mic.sweep.queue.state import QueuedTrial
from mic.sweep.queue.storage import STORAGE_ERRORS, is_away
from mic.sweep.sweep_file import Metric
from mic.tracking import run_directory
from mic.tracking.metrics_log import read_metrics

LOGS = "logs"
LINES = 20  # of a failed trial's log that are stored
LONGEST = 300  # characters of each
PATIENCE = 300.0  # seconds that a trial has to save itself once it was asked to stop


def write_config(config: Config) -> Path:
    """Write the trial's resolved YAML into its folder, unless an earlier attempt has; its path."""
    file = run_directory.path_of(config) / "config.yaml"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, to_yaml(config))
    return file


def log_path(config: Config) -> Path:
    """The file for the trial's output: not in its folder, which the run may replace."""
    return Path(config.runs) / LOGS / f"{config.name}.log"


@contextmanager
def start_trial(
    launcher: Sequence[str], file: Path, log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a trial's process group, which ends with the block, and also when this process dies."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with lifeline() as pipe, log.open("ab") as stream:
        stream.write(f"mic sweep: {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        stream.flush()
        process = subprocess.Popen(
            [*launcher, str(file)],
            env={**environment, "MIC_LAUNCHED": pipe},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill_trial(process)


def kill_trial(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the group's leader, which forwards it and saves the run's state."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)


def last_lines(log: Path) -> tuple[str, ...]:
    """The last lines of a trial's log."""
    if not log.is_file():
        return ()
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4 * LINES * LONGEST))
        lines = stream.read().decode(errors="replace").splitlines()
    return tuple(line[:LONGEST] for line in lines[-LINES:])


def final_values(folder: Path, metrics: Sequence[Metric]) -> tuple[float, ...] | str:
    """The last value of each metric; or a message about one that is missing or not a number."""
    logged = read_metrics(folder / run_directory.METRICS)
    last_values = []
    for metric in metrics:
        series = logged.get(metric.name)
        if series is None:
            near = get_close_matches(metric.name, logged, 3, 0.4)
            return f"metric {metric.name!r}: not logged; there are {', '.join(near) or 'none'}"
        value = series[max(series)]
        if value != value:
            return f"metric {metric.name!r}: is not a number"
        last_values.append(value)
    return tuple(last_values)


def validation_values(folder: Path, metric: Metric, steps: int) -> list[float]:
    """The values of a metric at the validations between a run's first step and its last."""
    series = read_metrics(folder / run_directory.METRICS).get(metric.name, {})
    return [value for step, value in series.items() if 0 < step < steps]


class EarlyStopper:
    """Gives the pruner every validation of a trial, to decide whether it is ended early.

    Only trials of the first seed are watched: they decide for all seeds of their setting.
    """

    def __init__(self, queue: Queue, trial: QueuedTrial, config: Config) -> None:
        self.queue, self.trial, self.config = queue, trial, config
        self.active = (
            queue.sweep.early_termination is not None and trial.seed == queue.sweep.seeds[0]
        )
        self.file = run_directory.path_of(config) / run_directory.METRICS
        self.size, self.reported = -1, 0

    def should_stop(self) -> bool:
        """Whether the pruner ends the trial, by the validations since the last call."""
        if not self.active or not self.file.is_file() or self.file.stat().st_size == self.size:
            return False
        self.size = self.file.stat().st_size
        metric = self.queue.sweep.metrics[0]
        values = validation_values(self.file.parent, metric, self.config.trainer.max_steps)
        try:
            for number, value in enumerate(values[self.reported :], self.reported + 1):
                if self.queue.report(self.trial.setting, number, value):
                    return True
                self.reported = number
        except STORAGE_ERRORS as error:
            if not is_away(error):
                raise
            self.size = -1
        return False
