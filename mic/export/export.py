"""Export a model: write it under a temporary name, compare its embeddings, rename it, send it."""

import errno
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError

from mic import __version__
from mic.errors import InputError, RunError
from mic.evaluation.tasks.tasks import Task
from mic.export import hub, onnx
from mic.export.card import model_card, write_card
from mic.export.card_quality import cutting_cost, known_scores
from mic.export.folder import folder_bytes, write_model
from mic.export.parity import STOCK, compare_export, encoder_vectors, source_vectors
from mic.export.quality import measure_tasks, read_quality_tasks
from mic.export.record import ExportRecord
from mic.export.source import ModelSource, read_source
from mic.files import free_bytes, partial_path, write_json

MARK = "export.json"  # in every folder that mic exported, and in no other
USUAL = (16, 32, 64, 128, 256)  # widths reported of a model without nested training
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
BESIDE = 8 * 2**20  # bytes of tokenizer, card and other files


class ExportOptions(NamedTuple):
    """What to export, and how; see `mic export --help`."""

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
    trust_remote_code: bool = False


def export(options: ExportOptions) -> list[str]:
    """Write the folder; returns lines that describe it for the terminal.

    Raises InputError for a folder, width, run or disk that cannot be used, and RunError when the
    folder could not be written or gives other embeddings than mic's encoder.
    """
    refuse_options(options)
    refuse_other_files(options.to)
    source = read_source(
        options.model, options.teacher, options.checkpoint, options.trust_remote_code
    )
    full = source.encoder.width
    if options.dim is not None and options.dim > full:
        raise InputError(
            f"--dim {options.dim}: {options.model} has {full} dimensions; give 1 to {full}"
        )
    weights = sum(parameter.numel() for parameter in source.encoder.parameters())
    needed = weights * (DTYPES[options.dtype].itemsize + 4 * options.onnx) + BESIDE
    refuse_small_disk(options.to, needed)
    tasks = read_quality_tasks(options.quality_of) if options.quality_of else []
    partial = partial_path(options.to)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        record = write_export(partial, options, source, tasks)
        move_into_place(partial, options.to)
    except (OSError, SafetensorError) as error:
        full_disk = getattr(error, "errno", None) == errno.ENOSPC
        cure = "free some space, or give --to FOLDER on another disk" if full_disk else "try again"
        raise RunError(f"{options.to}: could not be written: {error}; {cure}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    lines = describe_export(options, record)
    if options.push:
        lines.append(hub.push(options.to, options.push, options.public))
    return lines


def write_export(
    partial: Path, options: ExportOptions, source: ModelSource, tasks: Sequence[Task]
) -> ExportRecord:
    """Write the whole folder under its temporary name."""
    encoder = source.encoder
    limit = options.dim or encoder.width
    below = source.dims[:-1] if source.nested else USUAL
    dims = (*(dim for dim in below if dim < limit), limit)
    nested = tuple(dim for dim in dims if source.nested)
    trusted = source.trust_remote_code
    if source.folder is None:
        expected, reference = encoder_vectors(encoder), "mic's encoder"
    else:  # its weights are as they were
        expected, reference = source_vectors(source.folder, trusted), f"{STOCK} reads {source.name}"
    partial.parent.mkdir(parents=True, exist_ok=True)
    write_model(partial, encoder, options.dim, nested, DTYPES[options.dtype])
    parity = compare_export(
        partial,
        expected,
        dims,
        options.dtype,
        reference,
        of_length_1=options.dim is not None or encoder.width == encoder.full_width,
        trust_remote_code=trusted,
    )
    onnx_difference = onnx.write_onnx(partial, encoder, options.dim) if options.onnx else None
    record = ExportRecord(
        source=source,
        dim=options.dim,
        dims=dims,
        dtype=options.dtype,
        parity=parity,
        onnx=onnx_difference,
        quality=measure_tasks(encoder, tasks, dims),
        prompts=encoder.prompts,
        repo=options.push,
    )
    write_card(partial, model_card(record))
    write_json(
        partial / MARK,
        {
            "mic": __version__,
            "from": source.name,
            "part": source.description,
            "step": source.step,
            "width": limit,
            "dims": nested,
            "dtype": options.dtype,
            "read_by": parity.reader,
            "largest_difference": parity.largest,
        },
    )
    return record


def describe_export(options: ExportOptions, record: ExportRecord) -> list[str]:
    """Lines for the terminal about a folder that was written."""
    source, limit = record.source, record.dims[-1]
    widths = f"nested at {', '.join(map(str, record.dims))}" if source.nested else "not nested"
    lines = [
        f"{options.to}: {source.description}; {limit} dimensions, {widths}; {options.dtype}, "
        f"{folder_bytes(options.to) / 1e6:.1f} MB",
        f"read by {record.parity.reader}: the largest difference from {record.parity.reference} is "
        f"{max(record.parity.largest.values()):.1e}, over all widths",
    ]
    if record.onnx is not None:
        lines.append(f"onnx/model.onnx: the largest difference is {record.onnx:.1e}")
    if not source.nested:
        lines.append("No nested training is known of it: cutting it is raw truncation.")
        lines += [cutting_cost(*scores) for scores in known_scores(record)] or [
            "What that costs was not measured; --quality-of CONFIG measures it."
        ]
    elif limit not in source.dims:
        lines.append(f"{limit} is none of the widths it was trained at: {list(source.dims)}")
    example = "" if options.dim else ", truncate_dim=64" if limit > 64 else ""
    normalize = ", normalize_embeddings=True" if example else ""
    lines.append(f'  SentenceTransformer("{options.to}"{example}).encode(texts{normalize})')
    lines.append(f"  mic encode {options.to} < sentences.txt")
    return lines


def refuse_options(options: ExportOptions) -> None:
    if options.dim is not None and options.dim < 1:
        raise InputError(f"--dim {options.dim}: give 1 or more")
    if options.public and not options.push:
        raise InputError("--public: nothing is sent anywhere; add --push REPO")
    if options.push:
        hub.check_repo_name(options.push)
    if options.onnx:
        onnx.check_packages()


def refuse_other_files(folder: Path) -> None:
    """Raise an InputError when the folder holds anything but an export of mic."""
    cure = "give another --to FOLDER"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"--to {folder}: is a file or a link; {cure}")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise InputError(f"--to {folder}: holds files that mic did not export; {cure}")


def refuse_small_disk(to: Path, needed: int) -> None:
    """Raise an InputError when the disk of `to` has less than `needed` bytes free."""
    free = free_bytes(to.parent)
    if free < needed:
        raise InputError(
            f"--to {to}: {free / 1e6:.0f} MB free, and the export takes {needed / 1e6:.0f} MB; "
            "free some, or give --to FOLDER on another disk"
        )


def move_into_place(partial: Path, to: Path) -> None:
    """Rename a whole folder to its name; an older export is renamed first, and removed last."""
    old = to.with_name(f".{to.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if to.exists():
        to.rename(old)
    partial.rename(to)
    shutil.rmtree(old, ignore_errors=True)
