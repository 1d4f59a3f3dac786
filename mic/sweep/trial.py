"""A trial: one run's process group, its log, and what it has measured so far."""

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
from mic.sweep.queue.state import Run
from mic.sweep.queue.storage import TROUBLE, away
from mic.sweep.sweep_file import Metric
from mic.tracking import run_directory
from mic.tracking.metrics_log import read_metrics

LOGS = "logs"
LINES = 20  # of a failed trial that are kept
LONGEST = 300  # letters of each
PATIENCE = 300.0  # seconds that a trial has to save itself once it was asked to stop


def prepare(config: Config) -> Path:
    """The run's resolved YAML in its own folder; the one of an earlier attempt is left as it is."""
    file = run_directory.path_of(config) / "config.yaml"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, to_yaml(config))
    return file


def log_of(config: Config) -> Path:
    """The file that a run's output goes to: not in its folder, which the run may make anew."""
    return Path(config.runs) / LOGS / f"{config.name}.log"


@contextmanager
def started(
    launcher: Sequence[str], file: Path, log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A run's process group; nothing of it is left afterwards, nor when this process dies."""
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
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the group's leader, which passes it on and saves the run's state."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)


def last_lines(log: Path) -> tuple[str, ...]:
    """The end of what a run has written."""
    if not log.is_file():
        return ()
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4 * LINES * LONGEST))
        lines = stream.read().decode(errors="replace").splitlines()
    return tuple(line[:LONGEST] for line in lines[-LINES:])


def values(folder: Path, metrics: Sequence[Metric]) -> tuple[float, ...] | str:
    """The last value of each metric; or, as a text, what is wrong with one."""
    logged = read_metrics(folder / run_directory.METRICS)
    found = []
    for metric in metrics:
        series = logged.get(metric.name)
        if series is None:
            near = get_close_matches(metric.name, logged, 3, 0.4)
            return f"metric {metric.name!r}: not logged; there are {', '.join(near) or 'none'}"
        value = series[max(series)]
        if value != value:
            return f"metric {metric.name!r}: is not a number"
        found.append(value)
    return tuple(found)


def validations(folder: Path, metric: Metric, steps: int) -> list[float]:
    """The values that a metric had at the validations between a run's first step and its last."""
    series = read_metrics(folder / run_directory.METRICS).get(metric.name, {})
    return [value for step, value in series.items() if 0 < step < steps]


class Judge:
    """Tells the pruner of every validation of a setting's first seed, which decides for all."""

    def __init__(self, queue: Queue, run: Run, config: Config) -> None:
        self.queue, self.run, self.config = queue, run, config
        self.judges = queue.sweep.early is not None and run.seed == queue.sweep.seeds[0]
        self.file = run_directory.path_of(config) / run_directory.METRICS
        self.size, self.told = -1, 0

    def unfavourable(self) -> bool:
        """Whether a validation since the last call speaks for ending the run."""
        if not self.judges or not self.file.is_file() or self.file.stat().st_size == self.size:
            return False
        self.size = self.file.stat().st_size
        metric = self.queue.sweep.metrics[0]
        values = validations(self.file.parent, metric, self.config.trainer.max_steps)
        try:
            for number, value in enumerate(values[self.told :], self.told + 1):
                if self.queue.report(self.run.setting, number, value):
                    return True
                self.told = number
        except TROUBLE as error:
            if not away(error):
                raise
            self.size = -1
        return False
