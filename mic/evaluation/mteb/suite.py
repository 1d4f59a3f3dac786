"""What `--suite` says of mteb: a benchmark, all of its tasks, or local files in its protocol."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mic.config.loading import BROUGHT
from mic.errors import InputError
from mic.evaluation.mteb.local import local_tasks
from mic.evaluation.tasks.suite import chosen_tasks, meant, read_suite

PREFIX, ALL = "mteb:", "mteb"


def is_mteb(suite: str) -> bool:
    """Whether a suite is one of mteb's; its benchmarks have brackets, which no file of ours has.

    >>> [is_mteb(one) for one in ("MTEB(eng, v2)", "mteb", "mteb:BEIR", "mteb:mine.yaml", "paper")]
    [True, True, True, True, False]
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
    refuse_missing()
    name = suite.removeprefix(PREFIX)
    brought = any((folder / f"suite/{name}.yaml").is_file() for folder in BROUGHT)
    if name.endswith(".yaml") or brought:
        return local_tasks(chosen_tasks(read_suite(name, data), names))
    if data is not None:
        raise InputError(f"--data {data}: {suite} has its data from the Hub; leave it out")
    found = any_tasks(names) if name == ALL else of_benchmark(name, names)
    foreign = [one.metadata.name for one in found if set(one.metadata.modalities) != {"text"}]
    if foreign:
        raise InputError(
            f"--suite {suite}: {', '.join(foreign[:5])}: not about text alone, and mic encodes "
            "text; name the others with --tasks"
        )
    return found


def refuse_missing() -> None:
    if find_spec("mteb") is None:
        raise InputError("mteb is not installed: pip install 'mic-embeddings[mteb]'")


def any_tasks(names: Sequence[str]) -> list[Any]:
    import mteb

    if not names:
        raise InputError("--suite mteb: name tasks of it, as --tasks STS12,Banking77Classification")
    found = []
    for name in names:
        try:
            found.append(mteb.get_task(name))
        except KeyError as error:  # which names the nearest
            near = re.search("Did you mean: '(.+)'", str(error.args[0]))
            guess = f"; did you mean {near[1]}?" if near else ""
            raise InputError(f"--tasks {name}: mteb has no such task{guess}") from None
    return found


def of_benchmark(name: str, names: Sequence[str]) -> list[Any]:
    import mteb

    try:
        benchmark = mteb.get_benchmark(name)
    except KeyError:
        known = [one.name for one in mteb.get_benchmarks()]
        raise InputError(
            f"--suite {name}: mteb has no such benchmark{meant(name, known)}; single tasks are "
            "--suite mteb --tasks A,B"
        ) from None
    tasks = {task.metadata.name: task for task in benchmark.tasks}
    for one in names:
        if one not in tasks:
            raise InputError(f"--tasks {one}: {name} has no such task{meant(one, list(tasks))}")
    return [task for task in tasks.values() if not names or task.metadata.name in names]
