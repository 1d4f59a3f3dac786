"""Score the untrained encoder once, and store its scores in the run directory.

RUN/untrained/baselines.json has the scores of the two baselines that need no training,
RUN/untrained/spread.safetensors the covariance of the last task's embeddings. A run that resumes
reads them.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mic.console import bar
from mic.data.batch import signed
from mic.data.datamodule import PairDataModule
from mic.data.sources.examples import hash_text
from mic.errors import InputError
from mic.evaluation import scoring
from mic.evaluation.scoring import PCA, RAW, Results
from mic.evaluation.tasks.tasks import Task
from mic.files import replacing, write_json
from mic.metrics.geometry import covariance
from mic.nested import unit
from mic.train.module import MICModule

FOLDER = "untrained"
SCORES = "baselines.json"
SPREAD = "spread.safetensors"


class Untrained(NamedTuple):
    """Scores of raw truncation and PCA, and the last task's covariance, of unit vectors."""

    baselines: dict[str, Results]
    spread: Float[Tensor, "dim dim"]


def spread_of(embeddings: Float[Tensor, "texts dim"]) -> Float[Tensor, "dim dim"]:
    return covariance(unit(embeddings))


def score_untrained(
    module: MICModule,
    data: PairDataModule,
    tasks: Sequence[Task],
    before: Mapping[str, Tensor],
    dims: Sequence[int],
) -> dict[str, Results]:
    """The untrained encoder's scores at every width, truncated as it is and after a PCA.

    The PCA is fitted on `evaluation.pca_texts` training texts; `before` has the tasks' embeddings.
    """
    settings = module.config.evaluation
    rows = data.sample(settings.pca_texts, module.config.seed)
    texts = sorted({text for row in rows for text in row[:2]})
    chosen = random.Random(module.config.seed).sample(texts, min(settings.pca_texts, len(texts)))
    with bar("fitting PCA", len(chosen)) as advance:
        fitted_on = module.encoder.embed(chosen, batch_size=settings.batch_size, progress=advance)
    pca = scoring.fit_pca(fitted_on)
    projected = {name: pca(embeddings) for name, embeddings in before.items()}
    return {
        RAW: scoring.score_tasks(tasks, before, dims),
        PCA: scoring.score_tasks(tasks, projected, dims),
    }


def known_embeddings(
    data: PairDataModule, tasks: Sequence[Task], before: Mapping[str, Tensor]
) -> dict[int, Tensor]:
    """The validation rows' embeddings by the id of their text; empty unless tasks have them all."""
    wanted = {text for row in data.validation.texts() for text in row[:2]}
    known = {
        signed(hash_text(text)): row
        for task in tasks
        for text, row in zip(task.texts, before[task.name], strict=True)
        if text in wanted
    }
    return known if len(known) == len(wanted) else {}


def write_untrained(run: Path, untrained: Untrained) -> None:
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    with replacing(folder / SPREAD) as partial:
        save_file({"spread": untrained.spread.contiguous()}, partial)
    write_json(folder / SCORES, untrained.baselines)


def read_untrained(run: Path) -> Untrained | None:
    """The scores that `write_untrained` wrote; None where there are none.

    Raises InputError for damaged files.
    """
    folder = run / FOLDER
    if not (folder / SCORES).is_file():
        return None
    try:
        content = json.loads((folder / SCORES).read_text(encoding="utf-8"))
        spread = load_file(folder / SPREAD)["spread"]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"{folder}: not readable: {error}; remove it") from None
    return Untrained({name: by_width(scores) for name, scores in content.items()}, spread)


def by_width(results: dict[str, dict[str, dict[str, float | None]]]) -> Results:
    """Results read from JSON, with integers for widths and NaN for null."""
    return {
        task: {
            metric: {int(dim): torch.nan if v is None else v for dim, v in values.items()}
            for metric, values in metrics.items()
        }
        for task, metrics in results.items()
    }
