"""Write and read the evaluation of one model: NAME/results.json and items.safetensors.

results.json has the shape of a run's: task -> metric -> width -> value, with the baselines, the
geometry, hashes and versions in "meta". items.safetensors has the answer to every test item, for
the bootstrap.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mic.errors import InputError
from mic.evaluation.scoring import Results
from mic.evaluation.tasks.tasks import TaskScores
from mic.files import partial_path, write_json
from mic.metrics.bootstrap import Items, Statistic
from mic.tracking import run_directory
from mic.tracking.reader import OWN, parse_scores, read_results

ITEMS = "items.safetensors"


class Evaluation(NamedTuple):
    """The scores of a model and its baselines, and the items of the tasks that have them.

    `geometry` is of the baselines and, as OWN, of the model: measure -> width -> value.

    `meta` says what was evaluated (`weights`, `dims`, `tasks`: a hash of each), which models differ
    by their seed alone (`group`), whose baselines these are (`base`), and how it was done.
    """

    name: str
    results: Results
    baselines: dict[str, Results]
    items: dict[str, Items]
    meta: dict[str, Any]
    geometry: Mapping[str, TaskScores] = {}  # an older evaluation has none


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write an evaluation whole or not at all, to a folder that does not exist yet."""
    partial = partial_path(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    for task, items in evaluation.items.items():
        tensors[f"{task}/truth"] = items.truth
        tensors |= {
            f"{task}/d{dim}": answers.contiguous() for dim, answers in items.answers.items()
        }
    kinds: dict[str, str] = {task: items.statistic for task, items in evaluation.items.items()}
    save_file(tensors, partial / ITEMS, kinds or None)  # of {} it makes no readable file
    meta = {**evaluation.meta, "baselines": evaluation.baselines}
    if evaluation.geometry:
        meta["geometry"] = evaluation.geometry
    write_json(partial / run_directory.RESULTS, {**evaluation.results, "meta": meta})
    partial.rename(folder)


def is_evaluation(folder: Path) -> bool:
    return (folder / ITEMS).is_file() and (folder / run_directory.RESULTS).is_file()


def read_evaluation(folder: Path) -> Evaluation:
    """Read what `write_evaluation` wrote. Raises InputError for damaged files."""
    meta, methods = read_results(folder / run_directory.RESULTS)
    items = {}
    try:
        geometry = parse_scores(meta.pop("geometry", {}))
    except (ValueError, AttributeError, TypeError):
        raise InputError(
            f"{folder / run_directory.RESULTS}: its geometry is not readable; evaluate anew"
        ) from None
    try:
        with safe_open(folder / ITEMS, framework="pt") as opened:
            kinds: dict[str, Statistic] = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        for task, kind in kinds.items():
            answers = {
                dim: tensors[f"{task}/d{dim}"]
                for dim in meta["dims"]
                if f"{task}/d{dim}" in tensors
            }
            items[task] = Items(kind, tensors[f"{task}/truth"], answers)
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{folder / ITEMS}: not readable: {error}; evaluate anew") from None
    model_scores = methods.pop(OWN)
    return Evaluation(folder.resolve().name, model_scores, methods, items, meta, geometry)


def refuse_file(folder: Path) -> None:
    """Raise an InputError where the folder to write to, which `--to` names, is a file."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--to {folder}: is a file; name a folder")
