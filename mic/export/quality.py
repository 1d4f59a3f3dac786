"""Score the tasks of a config at every width and precision, from one encoding of their texts."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from mic.config.loading import load
from mic.encoder.encoder import Encoder
from mic.errors import InputError
from mic.evaluation import scoring
from mic.evaluation.tasks.tasks import Task, build_tasks
from mic.metrics.quantization import PRECISIONS, as_compared, int8_ranges
from mic.nested import prefix, unit

CALIBRATION = 1000  # embeddings that the ranges of int8 are taken from


class Quality(NamedTuple):
    """A task's headline metric by precision and width, times 100."""

    task: str
    metric: str
    texts: int
    values: dict[str, dict[int, float]]


def read_quality_tasks(file: Path) -> list[Task]:
    """All tasks that a config names. Raises InputError when there is none."""
    config = load(file)
    tasks = [*build_tasks(config.evaluation.validation), *build_tasks(config.evaluation.test)]
    if not tasks:
        raise InputError(
            f"--quality-of {file}: names no task; set evaluation.test.pairs.NAME.path in it, "
            "or another kind of task (`mic train --help` lists them)"
        )
    return tasks


def measure_tasks(encoder: Encoder, tasks: Sequence[Task], dims: Sequence[int]) -> list[Quality]:
    """Every task at every width in fp32, int8 and binary."""
    embedded = scoring.embed_tasks(encoder, tasks, 64, "encoding the tasks")
    return [score_precisions(task, embedded[task.name], dims) for task in tasks]


def score_precisions(task: Task, embeddings: Tensor, dims: Sequence[int]) -> Quality:
    """Score one task from its full embeddings: cut, normalised, quantised, compared.

    The ranges of int8 are those of a seeded sample of the task's own texts at that width.
    """
    rows = range(len(embeddings))
    sample = random.Random(0).sample(rows, min(CALIBRATION, len(rows)))
    values: dict[str, dict[int, float]] = {precision: {} for precision in PRECISIONS}
    for dim in dims:
        cut = unit(prefix(embeddings, dim))
        for precision, quantized in as_compared(cut, int8_ranges(cut[sample])).items():
            values[precision][dim] = task.score(quantized, [dim])[task.headline][dim]
    return Quality(task.name, task.headline, len(embeddings), values)
