"""Log how fast a run trains, and how its time divides among the phases of a step."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mic.collectives import total
from mic.data.batch import Batch
from mic.metrics.moments import exact_device
from mic.train.module import MICModule
from mic.train.step_metrics import record

PHASES = ("data", "encoder", "objective", "backward", "optimizer")


class Throughput(Callback):
    """Log the speed/ of training alone every `every` steps, and memory/mib.

    `pairs_per_second` and `tokens_per_second` (padding not counted) are those of all ranks since
    the last line. The shares of the time: `data` is waiting for a batch, `encoder` its forward
    passes, `objective` the losses with their collectives and a teacher, `backward` the gradients,
    `optimizer` the rest of the step. They are rank 0's; on a GPU, which has to be waited for
    between the phases, they are those of the logged steps alone. `memory/mib` is the peak so far:
    of torch's allocator on a GPU, else of the process.

    `pairs` and `seconds` are those of the whole training so far, `earlier` the seconds before a
    resume.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.pairs = 0
        self.seconds = self.earlier = 0.0
        self._spent = dict.fromkeys(PHASES, 0.0)
        self._before = (0, 0.0)  # pairs and seconds at the last line
        self._tokens: Any = 0
        self._started = self._marked = 0.0
        self._timing = True
        self._hooks: list[Any] = []

    @property
    def pairs_per_second(self) -> float:
        return self.pairs / self.seconds if self.seconds else 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time spent in the block out of all values."""
        began, timing, self._timing = self.now(), self._timing, False
        yield
        passed = self.now() - began
        self._started, self._marked, self._timing = (
            self._started + passed,
            self._marked + passed,
            timing,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        assert isinstance(pl_module, MICModule)
        encoder = pl_module.encoder
        self._hooks = [
            encoder.register_forward_pre_hook(lambda *_: self.mark("objective")),
            encoder.register_forward_hook(lambda *_: self.mark("encoder")),
        ]
        self._started = self._marked = self.now()

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        due = (trainer.global_step + 1) % self.every == 0
        self._timing = due or not torch.cuda.is_available()
        if torch.cuda.is_available() and due:
            self._marked = self._started  # after the wait for the steps before
        self.mark("data")

    def on_before_backward(self, *_: Any) -> None:
        self.mark("objective")

    def on_after_backward(self, *_: Any) -> None:
        self.mark("backward")

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self.mark("optimizer")
        now = self.now()
        self.seconds += now - self._started
        self._started = self._marked = now
        self.pairs += sum(batch.sizes) if batch.sizes else batch.size
        self._tokens = self._tokens + sum(
            tokens["attention_mask"].sum() for tokens in batch.columns
        )
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and trainer.global_step % self.every == 0:
            self.write(trainer)
            self._started = self._marked = self.now()

    def write(self, trainer: Trainer) -> None:
        """Log the values since the last line, and start counting again."""
        counted = torch.as_tensor(self._tokens)
        tokens = float(total(counted.to(exact_device(counted.device)).double()))
        pairs, seconds = self.pairs - self._before[0], self.seconds - self._before[1]
        timed = sum(self._spent.values())
        record(
            trainer,
            {
                "speed/pairs_per_second": pairs / seconds,
                "speed/tokens_per_second": tokens / seconds,
                **{f"speed/{phase}": spent / timed for phase, spent in self._spent.items()},
                "memory/mib": peak_memory(),
            },
        )
        self._before, self._tokens = (self.pairs, self.seconds), 0
        self._spent = dict.fromkeys(PHASES, 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"pairs": self.pairs, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pairs, self.seconds = state_dict["pairs"], state_dict["seconds"]
        self.earlier = self.seconds
        self._before = (self.pairs, self.seconds)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._started = self._marked = self.now()  # validation is not training time

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._timing = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def mark(self, phase: str) -> None:
        """Count the time since the last mark as that of `phase`."""
        if not self._timing:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = self.now()
        self._spent[phase] += now - self._marked
        self._marked = now

    @staticmethod
    def now() -> float:
        return time.perf_counter()


def peak_memory() -> float:
    """The most memory used so far, in MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)
