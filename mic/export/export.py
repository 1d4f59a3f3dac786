"""`mic export`: read, check, write under another name, compare, rename, perhaps send."""

import errno
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError

from mic import __version__
from mic.encoder.pretrained import read_json
from mic.errors import InputError, RunError
from mic.evaluation.tasks.tasks import Task
from mic.export import hub, onnx
from mic.export import parity as check
from mic.export.card import card, write_card
from mic.export.card_quality import cost, scores_of
from mic.export.folder import size, write_model
from mic.export.quality import measure, read_quality_tasks
from mic.export.record import Facts
from mic.export.source import Source, read_source
from mic.files import free_bytes, partial_path, write_json

MARK = "export.json"  # in every folder that mic exported, and in no other
USUAL = (16, 32, 64, 128, 256)  # widths looked at where nobody trained any
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
BESIDE = 8 * 2**20  # bytes of tokenizer, card and the rest


class Wanted(NamedTuple):
    """What to export, and how; `mic export --help` says what each means."""

    model: str
    to: Path
    dim: int | None = None
    dtype: str = "fp32"
    teacher: bool = False
    checkpoint: str | None = None
    quality_of: Path | None = None
    onnx: bool = False
    push: str | None = None
    public: bool = False


def export(wanted: Wanted) -> list[str]:
    """Write the folder and return what to tell about it.

    Raises InputError for a place, width, run or disk that will not do, and RunError when the
    folder could not be written or is read as other embeddings than ours.
    """
    refuse_options(wanted)
    refuse_foreign(wanted.to)
    source = read_source(wanted.model, wanted.teacher, wanted.checkpoint)
    full = source.encoder.width
    if wanted.dim is not None and wanted.dim > full:
        raise InputError(f"--dim {wanted.dim}: {wanted.model} has {full} numbers; give 1 to {full}")
    weights = sum(parameter.numel() for parameter in source.encoder.parameters())
    needed = weights * (DTYPES[wanted.dtype].itemsize + 4 * wanted.onnx) + BESIDE
    refuse_full_disk(wanted.to, needed)
    tasks = read_quality_tasks(wanted.quality_of) if wanted.quality_of else []
    partial = partial_path(wanted.to)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        facts = write(partial, wanted, source, tasks)
        put(partial, wanted.to)
    except (OSError, SafetensorError) as error:
        full_disk = getattr(error, "errno", None) == errno.ENOSPC
        cure = "free some space, or give --to FOLDER on another disk" if full_disk else "try again"
        raise RunError(f"{wanted.to}: could not be written: {error}; {cure}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    told = tell(wanted, facts)
    if wanted.push:
        told.append(hub.push(wanted.to, wanted.push, wanted.public))
    return told


def write(partial: Path, wanted: Wanted, source: Source, tasks: Sequence[Task]) -> Facts:
    """Write the whole folder under a name that nobody reads."""
    encoder = source.encoder
    limit = wanted.dim or encoder.width
    below = source.dims[:-1] if source.nested else USUAL
    dims = (*(dim for dim in below if dim < limit), limit)
    nested = tuple(dim for dim in dims if source.nested)
    prompts = (
        read_json(source.folder / "config_sentence_transformers.json", {}) if source.folder else {}
    )
    ours = check.expected(encoder, dims)
    partial.parent.mkdir(parents=True, exist_ok=True)
    write_model(partial, encoder, wanted.dim, nested, DTYPES[wanted.dtype], prompts)
    parity = check.compare(partial, ours, wanted.dtype)
    onnx_difference = onnx.write(partial, encoder, wanted.dim) if wanted.onnx else None
    facts = Facts(
        source=source,
        dim=wanted.dim,
        dims=dims,
        dtype=wanted.dtype,
        parity=parity,
        onnx=onnx_difference,
        quality=measure(encoder, tasks, dims),
        prompts=prompts,
        repo=wanted.push,
    )
    write_card(partial, card(facts))
    write_json(
        partial / MARK,
        {
            "mic": __version__,
            "from": source.name,
            "part": source.part,
            "step": source.step,
            "width": limit,
            "dims": nested,
            "dtype": wanted.dtype,
            "read_by": parity.reader,
            "largest_difference": parity.largest,
        },
    )
    return facts


def tell(wanted: Wanted, facts: Facts) -> list[str]:
    """What the terminal says of a folder that was written."""
    source, limit = facts.source, facts.dims[-1]
    widths = f"nested at {', '.join(map(str, facts.dims))}" if source.nested else "not nested"
    told = [
        f"{wanted.to}: {source.part}; {limit} numbers, {widths}; {wanted.dtype}, "
        f"{size(wanted.to) / 1e6:.1f} MB",
        f"read by {facts.parity.reader}: the largest difference from ours is "
        f"{max(facts.parity.largest.values()):.1e}, over all widths",
    ]
    if facts.onnx is not None:
        told.append(f"onnx/model.onnx: the largest difference is {facts.onnx:.1e}")
    if not source.nested:
        told.append("No nested training is known of it: cutting it is raw truncation.")
        told += [cost(*one) for one in scores_of(facts)] or [
            "What that costs was not measured; --quality-of CONFIG measures it."
        ]
    elif limit not in source.dims:
        told.append(f"{limit} is none of the widths it was trained at: {list(source.dims)}")
    example = "" if wanted.dim else ", truncate_dim=64" if limit > 64 else ""
    again = ", normalize_embeddings=True" if example else ""
    told.append(f'  SentenceTransformer("{wanted.to}"{example}).encode(texts{again})')
    told.append(f"  mic encode {wanted.to} < sentences.txt")
    return told


def refuse_options(wanted: Wanted) -> None:
    if wanted.dim is not None and wanted.dim < 1:
        raise InputError(f"--dim {wanted.dim}: give 1 or more")
    if wanted.public and not wanted.push:
        raise InputError("--public: nothing is sent anywhere; add --push REPO")
    if wanted.push:
        hub.refuse_name(wanted.push)
    if wanted.onnx:
        onnx.refuse_missing()


def refuse_foreign(folder: Path) -> None:
    """Raise an InputError when something else than an export of mic is at the place of one."""
    cure = "give another --to FOLDER"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"--to {folder}: is a file or a link; {cure}")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise InputError(f"--to {folder}: holds files that mic did not export; {cure}")


def refuse_full_disk(to: Path, needed: int) -> None:
    """Raise an InputError when the disk of `to` has less than `needed` bytes free."""
    free = free_bytes(to.parent)
    if free < needed:
        raise InputError(
            f"--to {to}: {free / 1e6:.0f} MB free, and the export takes {needed / 1e6:.0f} MB; "
            "free some, or give --to FOLDER on another disk"
        )


def put(partial: Path, to: Path) -> None:
    """Give a whole folder its name; an older export steps aside first, and is removed last."""
    old = to.with_name(f".{to.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if to.exists():
        to.rename(old)
    partial.rename(to)
    shutil.rmtree(old, ignore_errors=True)
