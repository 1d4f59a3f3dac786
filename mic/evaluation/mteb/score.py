"""One of mteb's tasks at every width: its data read once, each width scored by mteb, kept."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from importlib.metadata import version
from typing import Any

import numpy as np

from mic.errors import RunError
from mic.evaluation.mteb.model import AtWidth


def scores(
    task: Any,
    at: Mapping[int, AtWidth],
    cache: Any,
    batch_size: int,
    say: Callable[[str, int], None],
) -> dict[int, float]:
    """A task's main score by width, times 100; `cache` is mteb's ResultCache.

    What the cache has is read. `say` is told what is being done and how much of it has been: a
    task, or each part of one that has parts, at a width.

    Raises RunError where the data is not to be had.
    """
    parts = parts_of(task)
    for part in parts:
        name = part.metadata.name
        missing = [dim for dim, model in at.items() if result(part, model, cache) is None]
        say(name, len(at) - len(missing))
        for dim in loaded(part, missing, cache):
            say(f"{name} at {dim}", 0)
            run(part, at[dim], cache, batch_size)
            say(f"{name} at {dim}", 1)
    found = {}
    for dim, model in at.items():
        whole = [result(part, model, cache) for part in parts]
        if None in whole:
            raise RunError(f"task {task.metadata.name}: mteb gave no whole result at {dim}")
        if task.is_aggregate:
            joined = task.combine_task_results(whole)
            cache.save_to_cache(joined, model.mteb_model_meta)
        else:
            (joined,) = whole
        found[dim] = 100 * float(joined.get_score())
    return found


def parts_of(task: Any) -> list[Any]:
    """The tasks that a task is the mean of, or itself."""
    return list(task.metadata.tasks) if task.is_aggregate else [task]


def result(task: Any, model: AtWidth, cache: Any) -> Any:
    """The result that is kept; None where it is of other data or another mteb, or not whole."""
    try:
        found = cache.load_task_result(task.metadata.name, model.mteb_model_meta)
    except (ValueError, KeyError):  # half written
        return None
    if found is None or found.get_missing_evaluations(task):
        return None
    if (found.dataset_revision, found.mteb_version) != (task.metadata.revision, version("mteb")):
        return None
    return found.validate_and_filter_scores(task)


def loaded(task: Any, dims: Sequence[int], cache: Any) -> Iterator[int]:
    """The widths, one by one, with the task's data there and its dice as when it was new.

    mteb draws samples from the task's own generators, so that the second run of one object asks
    about other texts than the first: no two widths could be compared.

    Raises RunError where the data is not to be had.
    """
    if not dims:
        return
    there = task.data_loaded
    task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)
    if not there:
        load(task, cache)
    dice = task.rng_state, task.np_rng
    for dim in dims:
        task.rng_state, task.np_rng = deepcopy(dice)
        yield dim
    if not there:
        task.unload_data()


def load(task: Any, cache: Any) -> None:
    name, place = task.metadata.name, task.metadata.dataset.get("path")
    try:
        task.load_data()
    except Exception as error:  # of datasets, the Hub's client, httpx, the system
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RunError(
            f"task {name}: its data, {place} on the Hub, is not to be had ({reason}); connect to "
            "the network, put it into the Hub's offline cache, or leave the task out by naming "
            f"others with --tasks. The tasks that are done are kept in {cache.cache_path}"
        ) from error


def run(task: Any, model: AtWidth, cache: Any, batch_size: int) -> None:
    """Score a task at one width by mteb, into the cache; what was there of it is replaced."""
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
