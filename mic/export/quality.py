"""What every width is worth at every precision: the tasks of a config, scored from one encoding."""

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

CALIBRATION = 1000  # vectors that int8's ranges are taken from


class Quality(NamedTuple):
    """A task's headline metric by precision and width, times 100."""

    task: str
    metric: str
    texts: int
    values: dict[str, dict[int, float]]


def read_quality_tasks(file: Path) -> list[Task]:
    """All tasks that a config names. Raises InputError where there is none."""
    config = load(file)
    tasks = [*build_tasks(config.evaluation.validation), *build_tasks(config.evaluation.test)]
    if not tasks:
        raise InputError(
            f"--quality-of {file}: names no task; set evaluation.test.pairs.NAME.path in it, "
            "or another kind of task (`mic train --help` lists them)"
        )
    return tasks


def measure(encoder: Encoder, tasks: Sequence[Task], dims: Sequence[int]) -> list[Quality]:
    """Every task at every width in fp32, int8 and binary."""
    embedded = scoring.embed_tasks(encoder, tasks, 64, "encoding the tasks")
    return [at_precisions(task, embedded[task.name], dims) for task in tasks]


def at_precisions(task: Task, embeddings: Tensor, dims: Sequence[int]) -> Quality:
    """One task from its full embeddings: cut, scaled to length 1, coded, compared.

    The ranges of int8 are those of a seeded sample of the task's own texts at that width.
    """
    rows = range(len(embeddings))
    sample = random.Random(0).sample(rows, min(CALIBRATION, len(rows)))
    values: dict[str, dict[int, float]] = {precision: {} for precision in PRECISIONS}
    for dim in dims:
        vectors = unit(prefix(embeddings, dim))
        for precision, seen in as_compared(vectors, int8_ranges(vectors[sample])).items():
            values[precision][dim] = task.score(seen, [dim])[task.headline][dim]
    return Quality(task.name, task.headline, len(embeddings), values)
