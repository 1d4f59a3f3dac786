"""Read the model to export: a run's student or teacher, or a model that mic did not train."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mic.console import notice
from mic.encoder.encoder import Encoder
from mic.encoder.loading import locate, read_nested_dims
from mic.errors import InputError
from mic.files import sha256
from mic.nested import with_full
from mic.tracking import run_directory
from mic.tracking.reader import Run, read_run
from mic.train.resume.checkpoint_files import CHECKPOINTS, NAME, Checkpoint, candidates

NEWEST = "newest"


class ModelSource(NamedTuple):
    """An encoder and what is known of it; `given` is its name on the command line.

    `dims` are the widths that it was trained at, the full one last: that one alone where no nested
    training is known. `description` says whose weights they are; those of a run are of `step`.
    `ended` is true of a student at its run's end, whose scores are in results.json. `folder` is
    that of a model that is no run.
    """

    encoder: Encoder
    name: str
    description: str
    dims: tuple[int, ...]
    run: Run | None = None
    step: int | None = None
    teacher: bool = False
    ended: bool = False
    folder: Path | None = None
    given: str = ""
    trust_remote_code: bool = False  # whether Python code in its folder was run

    @property
    def nested(self) -> bool:
        return len(self.dims) > 1


def read_source(
    model: str,
    teacher: bool = False,
    checkpoint: str | None = None,
    trust_remote_code: bool = False,
) -> ModelSource:
    """Read a run directory, a model folder or a Hub name.

    Raises InputError for a run that is not finished unless a checkpoint is named, a teacher that
    is not there, and a model that cannot be read.
    """
    path = Path(model).expanduser()
    if path.name == run_directory.ENCODER and run_directory.is_run(path.parent):
        path = path.parent
    if run_directory.is_run(path):
        return read_run_source(read_run(path, geometry=False), teacher, checkpoint)
    for option, given in (("--teacher", teacher), (f"--checkpoint {checkpoint}", checkpoint)):
        if given:
            raise InputError(f"{option}: {model} is no run of mic; leave it out, or name a run")
    encoder = Encoder.from_pretrained(model, trust_remote_code=trust_remote_code)
    folder = locate(model, trust_remote_code=trust_remote_code)
    known = read_nested_dims(folder) or []
    dims = with_full([dim for dim in known if dim < encoder.width], encoder.width)
    name = model.removeprefix("package:") if "/" not in model else path.name
    return ModelSource(
        encoder,
        name,
        "the model as it is",
        dims,
        folder=folder,
        given=model,
        trust_remote_code=trust_remote_code,
    )


def read_run_source(run: Run, teacher: bool, checkpoint: str | None) -> ModelSource:
    """Read a run's student at its end, or the student or teacher of a checkpoint."""
    kind, steps = run.config.teacher.kind, run.config.trainer.max_steps
    if teacher and kind != "ema":
        cure = f"export {run.config.teacher.name} itself" if run.config.teacher.name else "leave it"
        raise InputError(
            f"--teacher: {run.folder} has teacher.kind={kind}, and only an ema teacher has weights "
            f"of the run's own; {cure if kind in ('frozen', 'cached') else 'leave --teacher out'}"
        )
    if not run.finished and checkpoint is None:
        raise InputError(
            f"{run.folder}: not finished: at step {run.step} of {steps}; end it with `mic resume "
            f"{run.folder}`, or name a checkpoint: --checkpoint {NEWEST}"
        )
    trained, trusted = run.config.objective.dims, run.config.encoder.trust_remote_code
    if not teacher and checkpoint is None:
        encoder = run_encoder(run)
        dims = with_full(trained, encoder.width)
        description = f"the student at the end of the run, after step {steps:,}"
        return ModelSource(
            encoder,
            run.name,
            description,
            dims,
            run,
            steps,
            ended=True,
            trust_remote_code=trusted,
        )
    file = pick_checkpoint(run.folder / CHECKPOINTS, checkpoint or NEWEST)
    encoder = build_encoder(run)
    step = load_weights(encoder, file, "teacher.encoder." if teacher else "encoder.")
    owner = "the teacher, a moving average of the student," if teacher else "the student"
    description = f"{owner} at the checkpoint of step {step:,}"
    dims = with_full(trained, encoder.width)
    return ModelSource(
        encoder, run.name, description, dims, run, step, teacher, trust_remote_code=trusted
    )


def pick_checkpoint(folder: Path, wanted: str) -> Path:
    """The file of a checkpoint: the one named, or the newest intact one."""
    if wanted != NEWEST:
        named = Path(wanted).expanduser()
        if not named.is_file():
            names = ", ".join(known.path.name for known in candidates(folder)) or "none"
            raise InputError(f"--checkpoint {wanted}: no such file; in {folder} there are: {names}")
        return named
    for checkpoint in intact_checkpoints(folder):
        return checkpoint.path
    raise InputError(
        f"{folder}: no whole checkpoint; end the run with `mic resume {folder.parent}`"
    )


def intact_checkpoints(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints with the right SHA-256, newest first; a notice names each damaged one."""
    for checkpoint in candidates(folder):
        if sha256(checkpoint.path).startswith(checkpoint.sha256):
            yield checkpoint
        else:
            notice(f"{checkpoint.path}: damaged; taking the one before")


def run_encoder(run: Run) -> Encoder:
    trusted = run.config.encoder.trust_remote_code
    return Encoder.from_pretrained(run.folder, trust_remote_code=trusted)


def build_encoder(run: Run) -> Encoder:
    """An encoder of the run's architecture: its own when written, else the one it began with."""
    if (run.folder / run_directory.ENCODER).is_dir():
        return run_encoder(run)
    from mic.train.module import load_encoder  # imports lightning

    encoder = load_encoder(run.config)
    encoder.max_length = encoder.longest()
    return encoder


def load_weights(encoder: Encoder, file: Path, prefix: str) -> int:
    """Load the weights under `prefix` of a checkpoint into an encoder; returns their step.

    Raises InputError for a file that is damaged, or no checkpoint of such an encoder.
    """
    named = NAME.fullmatch(file.name)
    if named and not sha256(file).startswith(named[2]):
        raise InputError(f"--checkpoint {file}: damaged; its SHA-256 is not the one in its name")
    try:
        content: dict[str, Any] = torch.load(file, "cpu", weights_only=True, mmap=True)
        state, step = content["state_dict"], int(content["global_step"])
        weights = {
            key.removeprefix(prefix): weight
            for key, weight in state.items()
            if key.startswith(prefix)
        }
        encoder.load_state_dict(weights)
    except Exception as error:  # torch raises errors of many kinds for other files
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"--checkpoint {file}: not a checkpoint of this run ({reason}); name another"
        ) from error
    return step
