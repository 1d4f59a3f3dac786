"""Find mteb's tasks for `--suite`: a benchmark, named tasks, or local files in mteb's protocol."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mic.config.loading import BROUGHT
from mic.errors import InputError
from mic.evaluation.mteb.local import local_tasks
from mic.evaluation.tasks.suite import chosen_tasks, nearest_names, read_suite

PREFIX, ALL = "mteb:", "mteb"


def is_mteb(suite: str) -> bool:
    """Whether a suite is one of mteb's; names of its benchmarks have brackets.

    >>> [is_mteb(name) for name in ("MTEB(eng, v2)", "mteb", "mteb:BEIR", "mteb:mine.yaml")]
    [True, True, True, True]
    >>> is_mteb("paper")
    False
    """
    file = suite.endswith(".yaml") and not suite.startswith(PREFIX)
    return not file and (suite == ALL or suite.startswith(PREFIX) or "(" in suite)


def find_tasks(suite: str, data: Path | None, names: Sequence[str]) -> list[Any]:
    """mteb's tasks for a suite, all of them or those of the given names.

    `MTEB(eng, v2)` is a benchmark, and so is BEIR in `mteb:BEIR`; `mteb` alone stands for all tasks
    that mteb knows, of which some must be named; `mteb:FILE.yaml`, or `mteb:paper`, is a suite of
    local files.

    Raises InputError where mteb is missing, and for names that it does not know.
    """
    name = suite.removeprefix(PREFIX)
    brought = any((folder / f"suite/{name}.yaml").is_file() for folder in BROUGHT)
    if name.endswith(".yaml") or brought:
        return local_tasks(chosen_tasks(read_suite(name, data), names))
    if data is not None:
        raise InputError(f"--data {data}: the data of {suite} comes from the Hub; leave it out")
    tasks = any_tasks(names) if name == ALL else of_benchmark(name, names)
    foreign = [task.metadata.name for task in tasks if set(task.metadata.modalities) != {"text"}]
    if foreign:
        raise InputError(
            f"--suite {suite}: {', '.join(foreign[:5])}: not of text alone, and mic encodes "
            "only text; name the others with --tasks"
        )
    return tasks


def any_tasks(names: Sequence[str]) -> list[Any]:
    import mteb

    if not names:
        raise InputError("--suite mteb: name tasks of it, as --tasks STS12,Banking77Classification")
    tasks = []
    for name in names:
        try:
            tasks.append(mteb.get_task(name))
        except KeyError as error:  # which names the nearest
            near = re.search("Did you mean: '(.+)'", str(error.args[0]))
            guess = f"; did you mean {near[1]}?" if near else ""
            raise InputError(f"--tasks {name}: mteb has no such task{guess}") from None
    return tasks


def of_benchmark(name: str, names: Sequence[str]) -> list[Any]:
    import mteb

    try:
        benchmark = mteb.get_benchmark(name)
    except KeyError:
        known = [task_name.name for task_name in mteb.get_benchmarks()]
        raise InputError(
            f"--suite {name}: mteb has no such benchmark{nearest_names(name, known)}; single tasks "
            "are --suite mteb --tasks A,B"
        ) from None
    tasks = {task.metadata.name: task for task in benchmark.tasks}
    for task_name in names:
        if task_name not in tasks:
            raise InputError(
                f"--tasks {task_name}: {name} has no such task"
                f"{nearest_names(task_name, list(tasks))}"
            )
    return [task for task in tasks.values() if not names or task.metadata.name in names]
