"""Whether a running trial is to be ended early, by what it has measured so far."""

from mic.config.schema import Config
from mic.sweep import trial
from mic.sweep.queue.queue import Queue
from mic.sweep.queue.state import Run
from mic.sweep.queue.storage import TROUBLE, away
from mic.tracking import run_directory


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
        values = trial.validations(self.file.parent, metric, self.config.trainer.max_steps)
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
