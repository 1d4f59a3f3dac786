"""What is exported: a run's student or teacher, or a model that mic did not train."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mic.console import notice
from mic.encoder.encoder import Encoder
from mic.encoder.pretrained import locate, read_nested_dims
from mic.errors import InputError
from mic.files import sha256
from mic.nested import with_full
from mic.tracking import run_directory
from mic.tracking.reader import Run, read_run
from mic.train.resume.checkpoint_files import CHECKPOINTS, NAME, Checkpoint, candidates

NEWEST = "newest"


class Source(NamedTuple):
    """An encoder and what is known of it; `given` is the name that it was asked for by.

    `dims` are the widths that it was trained at, the full one last: that one alone where no nested
    training is known. `part` says in words whose weights they are, of `step` where they are a
    run's. `ended` is true of a student at its run's end, whom results.json describes. `folder` is
    the model's where it is no run.
    """

    encoder: Encoder
    name: str
    part: str
    dims: tuple[int, ...]
    run: Run | None = None
    step: int | None = None
    teacher: bool = False
    ended: bool = False
    folder: Path | None = None
    given: str = ""

    @property
    def nested(self) -> bool:
        return len(self.dims) > 1


def read_source(model: str, teacher: bool = False, checkpoint: str | None = None) -> Source:
    """What a run's folder, a model's folder or a Hub name stands for.

    Raises InputError for a run that is not finished unless a checkpoint is named, a teacher that
    is not there, and a model that cannot be read.
    """
    place = Path(model).expanduser()
    if place.name == run_directory.ENCODER and run_directory.is_run(place.parent):
        place = place.parent
    if run_directory.is_run(place):
        return read_trained(read_run(place, geometry=False), teacher, checkpoint)
    for option, given in (("--teacher", teacher), (f"--checkpoint {checkpoint}", checkpoint)):
        if given:
            raise InputError(f"{option}: {model} is no run of mic; leave it out, or name a run")
    encoder = Encoder.from_pretrained(model)
    folder = locate(model)
    known = read_nested_dims(folder) or []
    dims = with_full([dim for dim in known if dim < encoder.width], encoder.width)
    name = model.removeprefix("package:") if "/" not in model else place.name
    return Source(encoder, name, "the model as it is", dims, folder=folder, given=model)


def read_trained(run: Run, teacher: bool, checkpoint: str | None) -> Source:
    """A run's student at its end, or what a checkpoint holds."""
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
    trained = run.config.objective.dims
    if not teacher and checkpoint is None:
        encoder = own_encoder(run)
        dims = with_full(trained, encoder.width)
        part = f"the student at the end of the run, after step {steps:,}"
        return Source(encoder, run.name, part, dims, run, steps, ended=True)
    found = pick(run.folder / CHECKPOINTS, checkpoint or NEWEST)
    encoder = skeleton(run)
    step = fill(encoder, found, "teacher.encoder." if teacher else "encoder.")
    who = "the teacher, a moving average of the student," if teacher else "the student"
    part = f"{who} at the checkpoint of step {step:,}"
    return Source(encoder, run.name, part, with_full(trained, encoder.width), run, step, teacher)


def pick(folder: Path, wanted: str) -> Path:
    """The file of a checkpoint: the one named, or the newest that is whole."""
    if wanted != NEWEST:
        named = Path(wanted).expanduser()
        if not named.is_file():
            there = ", ".join(one.path.name for one in candidates(folder)) or "none"
            raise InputError(f"--checkpoint {wanted}: no such file; in {folder} there are: {there}")
        return named
    for one in whole(folder):
        return one.path
    raise InputError(
        f"{folder}: no whole checkpoint; end the run with `mic resume {folder.parent}`"
    )


def whole(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints whose bytes are those that were written, newest first; others are said."""
    for one in candidates(folder):
        if sha256(one.path).startswith(one.sha256):
            yield one
        else:
            notice(f"{one.path}: damaged; taking the one before")


def own_encoder(run: Run) -> Encoder:
    trusted = run.config.encoder.trust_remote_code
    return Encoder.from_pretrained(run.folder, trust_remote_code=trusted)


def skeleton(run: Run) -> Encoder:
    """An encoder of the run's shape: its own where it wrote one, else what it began with."""
    if (run.folder / run_directory.ENCODER).is_dir():
        return own_encoder(run)
    from mic.train.module import load_encoder  # imports lightning

    return load_encoder(run.config)


def fill(encoder: Encoder, file: Path, prefix: str) -> int:
    """Put the weights under `prefix` of a checkpoint into an encoder; the step they are of.

    Raises InputError for a file that is damaged, or no checkpoint of such an encoder.
    """
    named = NAME.fullmatch(file.name)
    if named and not sha256(file).startswith(named[2]):
        raise InputError(f"--checkpoint {file}: damaged; its SHA-256 is not the one in its name")
    try:
        held: dict[str, Any] = torch.load(file, "cpu", weights_only=True, mmap=True)
        state, step = held["state_dict"], int(held["global_step"])
        weights = {
            key.removeprefix(prefix): one for key, one in state.items() if key.startswith(prefix)
        }
        encoder.load_state_dict(weights)
    except Exception as error:  # torch's own of every kind, for a file that is something else
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"--checkpoint {file}: not a checkpoint of this run ({reason}); name another"
        ) from error
    return step
