"""Score one of mteb's tasks at every width; its data is read once, results are stored."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from importlib.metadata import version
from typing import Any

import numpy as np

from mic.errors import RunError
from mic.evaluation.mteb.model import AtWidth


def score_task(
    task: Any,
    models: Mapping[int, AtWidth],
    cache: Any,
    batch_size: int,
    say: Callable[[str, int], None],
) -> dict[int, float]:
    """A task's main score by width, times 100; `cache` is mteb's ResultCache.

    Results in the cache are read. `say(text, count)` is called with the task, or the subtask of an
    aggregate, and how many of its widths were finished since the last call.

    Raises RunError where the data is not available.
    """
    subtasks = subtasks_of(task)
    for subtask in subtasks:
        name = subtask.metadata.name
        missing = [
            dim for dim, model in models.items() if read_result(subtask, model, cache) is None
        ]
        say(name, len(models) - len(missing))
        for dim in with_data(subtask, missing, cache):
            say(f"{name} at {dim}", 0)
            run_task(subtask, models[dim], cache, batch_size)
            say(f"{name} at {dim}", 1)
    scores = {}
    for dim, model in models.items():
        whole = [read_result(subtask, model, cache) for subtask in subtasks]
        if None in whole:
            raise RunError(f"task {task.metadata.name}: mteb gave no whole result at {dim}")
        if task.is_aggregate:
            joined = task.combine_task_results(whole)
            cache.save_to_cache(joined, model.mteb_model_meta)
        else:
            (joined,) = whole
        scores[dim] = 100 * float(joined.get_score())
    return scores


def subtasks_of(task: Any) -> list[Any]:
    """The subtasks that an aggregate is the mean of, or the task itself."""
    return list(task.metadata.tasks) if task.is_aggregate else [task]


def read_result(task: Any, model: AtWidth, cache: Any) -> Any:
    """The stored result; None where it is of other data or another mteb, or incomplete."""
    try:
        result = cache.load_task_result(task.metadata.name, model.mteb_model_meta)
    except (ValueError, KeyError):  # half written
        return None
    if result is None or result.get_missing_evaluations(task):
        return None
    if (result.dataset_revision, result.mteb_version) != (task.metadata.revision, version("mteb")):
        return None
    return result.validate_and_filter_scores(task)


def with_data(task: Any, dims: Sequence[int], cache: Any) -> Iterator[int]:
    """Yield the widths, with the task's data loaded and its random generators as when it was new.

    mteb draws samples from the task's generators, so that a second run of one object would use
    other texts than the first, and widths could not be compared.

    Raises RunError where the data is not available.
    """
    if not dims:
        return
    loaded = task.data_loaded
    task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)
    if not loaded:
        load_data(task, cache)
    generators = task.rng_state, task.np_rng
    for dim in dims:
        task.rng_state, task.np_rng = deepcopy(generators)
        yield dim
    if not loaded:
        task.unload_data()


def load_data(task: Any, cache: Any) -> None:
    name, place = task.metadata.name, task.metadata.dataset.get("path")
    try:
        task.load_data()
    except Exception as error:  # of datasets, the Hub's client, httpx, the system
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RunError(
            f"task {name}: its data, {place} on the Hub, is not available ({reason}); connect to "
            "the network, put it into the Hub's offline cache, or leave the task out by naming "
            f"others with --tasks. Finished tasks are stored in {cache.cache_path}"
        ) from error


def run_task(task: Any, model: AtWidth, cache: Any, batch_size: int) -> None:
    """Score a task at one width by mteb, into the cache; an earlier result is replaced."""
    import mteb

    mteb.evaluate(
        model,
        task,
        cache=cache,
        overwrite_strategy="always",
        co2_tracker=False,
        show_progress_bar=False,
        encode_kwargs={"batch_size": batch_size, "show_progress_bar": False},
    )
