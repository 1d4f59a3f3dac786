"""Save and resume a Lightning run exactly: it ends with the bits of one never interrupted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as CheckpointCallback

from mic.collectives import any_rank, gather_objects, rank, world_size
from mic.distributed.preemption import Stop
from mic.distributed.process_group import from_rank_zero
from mic.errors import Preempted
from mic.files import partial_path
from mic.train.resume import loop_state
from mic.train.resume.checkpoint_files import WholeFile, newest, publish
from mic.train.resume.loop_state import SavePoint
from mic.train.resume.random_state import (
    RandomState,
    capture_random_state,
    restore_random_state,
    seed_rank,
)

AGREE = 4  # batches between two checks on all ranks whether one was asked to stop


class ExactResume(CheckpointCallback):
    """Save the whole state every `every` steps, at the last one, and when asked to stop.

    It works in any Lightning run: `Trainer(callbacks=[exact, ...])` and `trainer.fit(module, data,
    ckpt_path=exact.path())`. Beside what Lightning saves (weights, optimisers, schedulers, scaler,
    loops, callbacks) a checkpoint holds the random state of every rank, which each has its own, and
    counters from which Lightning goes on at the very batch or validation. Validation leaves the
    random state unchanged. The newest `keep` checkpoints stay on disk.

    A signal sets `stop`; ranks agree on it every few batches of training and validation. Then the
    state is saved at the step's end, and all of them raise Preempted.

    Raises RunError on all ranks when a checkpoint cannot be written.
    """

    def __init__(
        self,
        folder: Path | str,
        every: int = 200,
        *,
        keep: int = 2,
        seed: int = 0,
        stop: Stop | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.every = every
        self.keep = keep
        self.seed = seed
        self.stop = stop or Stop()
        self._io = WholeFile()
        self._place: SavePoint = "batch"
        self._saved = 0  # steps
        self._now: RandomState | None = None  # after a batch; None between two epochs
        self._loader: RandomState | None = None  # before this epoch's loader began
        self._loaded: dict[str, Any] | None = None
        self._due: int | None = None  # max_steps, while a validation is due that comes first
        self._check: Any = None
        self._entered = False
        self._looks = 0
        self._lines: int | None = None

    def path(self) -> Path | None:
        """The newest checkpoint that is whole, for `trainer.fit(ckpt_path=...)`."""
        checkpoint = newest(self.folder)
        return checkpoint.path if checkpoint else None

    # ---------------------------------------------------------- starting, anew or from a checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = self._io

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        device = trainer.strategy.root_device
        if self._loaded is None:
            seed_rank(self.seed, rank())
            self._loader = capture_random_state(device)
            return
        if self._loader is not None:
            restore_random_state(self._loader, device)
        self.keep_open(trainer, self._loaded)

    def begin_again(self, trainer: Trainer, state: Mapping[str, Any]) -> None:
        device, this = trainer.strategy.root_device, rank()
        if this < len(state["ranks"]):
            self._now, self._loader = state["ranks"][this]["now"], state["ranks"][this]["loader"]
            restore_random_state(self._loader, device)
        else:  # a rank that was not there: a stream of its own from here on
            seed_rank(self.seed, this, state["batches"])
            self._loader = capture_random_state(device)
            self._now = None if state["place"] == "epoch" else self._loader

    def keep_open(self, trainer: Trainer, state: Mapping[str, Any]) -> None:
        """Let Lightning begin to train although the last step is done: its validation is not."""
        if state["place"] != "validation due":
            return
        self._due = trainer.fit_loop.epoch_loop.max_steps
        if self._due == self._saved:
            trainer.fit_loop.epoch_loop.max_steps += 1

    def on_load_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        state = checkpoint["callbacks"].get(self.state_key, {})
        if state:
            self._loaded, self._saved = state, checkpoint["global_step"]
            self.begin_again(trainer, state)
            if trainer.strategy.restore_checkpoint_after_setup:  # on_fit_start has been
                self.keep_open(trainer, state)
        for logger in trainer.loggers:
            if hasattr(logger, "cut"):
                logger.cut(state.get("lines"), checkpoint["global_step"])

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.listen()
        self._entered, self._saved = False, trainer.global_step
        if self._loaded is None:
            return
        self._entered = self._loaded["place"] != "epoch"  # Lightning goes on within it
        if self._now is not None:
            restore_random_state(self._now, trainer.strategy.root_device)
        if self._loaded["place"] == "validation due":
            self._check, trainer.val_check_batch = trainer.val_check_batch, 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._lines = log_position(trainer)
        if self._due is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._due = self._due, None
            trainer.val_check_batch = self._check

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        if self._loaded is not None:  # Lightning counts a resumed run's logged steps one off
            trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
            self._loaded = None

    def listen(self) -> None:
        """Take the signals: Lightning's own handlers, set a moment ago, talk to other ranks."""
        self.stop.waits = True
        self.stop.listen()

    # ------------------------------------------------------------- where the state is saved

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        last = trainer.is_last_batch or batch_idx + 1 == trainer.num_training_batches
        validated = validates(trainer)
        if validated:
            self._now = capture_random_state(trainer.strategy.root_device)
        if trainer.fit_loop._should_accumulate():
            return
        if validated:
            if self.asked():
                self.save(trainer, "validation due")
                self.leave(trainer)
        elif not last:
            self.boundary(trainer, "batch")

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.check(trainer)

    def check(self, trainer: Trainer) -> None:
        """Leave a validation that a signal falls into; to be called on all ranks alike.

        Not one amid the batches of a step, whose gradients no checkpoint holds.
        """
        amid = not trainer.sanity_checking and trainer.fit_loop._should_accumulate()
        if amid or not self.asked():
            return
        if trainer.sanity_checking:
            raise preempted(f"{self.stop.why()} before the first step; nothing is half done")
        self.save(trainer, "validation due")
        self.leave(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if trainer.sanity_checking:
            return
        if self._now is not None:
            restore_random_state(self._now, trainer.strategy.root_device)
        if not trainer.fit_loop._should_accumulate():
            self.boundary(trainer, "validated")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if self._entered:
            self._loader, self._now = capture_random_state(trainer.strategy.root_device), None
            self.boundary(trainer, "epoch")
        self._entered = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if not trainer.should_stop and self._saved < trainer.global_step:
            self._loader, self._now = capture_random_state(trainer.strategy.root_device), None
            self.save(trainer, "epoch")
        if any_rank(self.stop.asked is not None):
            self.leave(trainer)
        self.stop.waits = False

    def on_exception(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        self.stop.waits = False

    def boundary(self, trainer: Trainer, place: SavePoint) -> None:
        """Save here when the interval or training ends, or when asked to stop, and then leave."""
        step, asked = trainer.global_step, self.asked()
        ended = 0 <= trainer.max_steps <= step
        due = asked or ended or step // self.every > self._saved // self.every
        if due and step > self._saved:
            self.save(trainer, place)
        if asked and not ended:
            self.leave(trainer)

    def asked(self) -> bool:
        """Whether any rank was asked to stop; ranks compare every few calls."""
        self._looks += 1
        looks = self._looks % AGREE == 0 or world_size() == 1
        return looks and any_rank(self.stop.asked is not None)

    def leave(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            if hasattr(logger, "preempting"):
                logger.preempting()
        raise preempted(
            f"{self.stop.why()} after step {trainer.global_step}; the state is saved. Go on with: "
            f"mic resume {self.folder.parent}"
        )

    def save(self, trainer: Trainer, place: SavePoint) -> None:
        """Write a checkpoint; all ranks have to call it."""
        self._place = place
        partial = partial_path(self.folder / "saving")
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(partial, weights_only=False)
        self._saved = trainer.global_step
        io = trainer.strategy.checkpoint_io
        written = io if isinstance(io, WholeFile) else None  # else a plugin's of the user's own
        from_rank_zero(lambda: publish(partial, written, self._saved, self.keep))

    # ------------------------------------------------------------- what a checkpoint holds

    def on_save_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        if self._place == "batch" and not trainer.validating:
            self._now = capture_random_state(trainer.strategy.root_device)
        broken_off = self._place == "validation due" and trainer.validating
        loop_state.set_counters(checkpoint["loops"]["fit_loop"], self._place, trainer.current_epoch)
        checkpoint["callbacks"][self.state_key] = {
            "place": self._place,
            "batches": trainer.fit_loop.epoch_loop.total_batch_idx + 1,
            "ranks": gather_objects({"now": self._now, "loader": self._loader}),
            "lines": self._lines if broken_off else log_position(trainer),
        }
        self._place = "batch"  # for whoever saves next, as ModelCheckpoint


def log_position(trainer: Trainer) -> int | None:
    """The line at which the run's log ends, if a logger has `position`."""
    return next((log.position() for log in trainer.loggers if hasattr(log, "position")), None)


def validates(trainer: Trainer) -> bool:
    """Whether Lightning validates after this batch."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return trainer.enable_validation and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def preempted(text: str) -> Preempted:
    """The error that every rank raises and rank 0 prints."""
    error = Preempted(text)
    error.reported = rank() > 0
    return error
