"""Judge models at every width: `mic evaluate MODEL...` and `mic compare A B ...`."""

from collections.abc import Sequence
from pathlib import Path

from mic.errors import InputError
from mic.evaluation import results
from mic.evaluation.evaluate import Options, build_suite, evaluate_models
from mic.evaluation.models import find_models
from mic.evaluation.mteb.run import PROTOCOL
from mic.evaluation.mteb.run import evaluate_all as evaluate_by_mteb
from mic.evaluation.mteb.suite import is_mteb
from mic.evaluation.mteb.summary import show as by_mteb
from mic.evaluation.results import Evaluation
from mic.evaluation.summary import show
from mic.evaluation.tasks.suite import chosen_tasks, read_suite


def evaluate(
    models: Sequence[str], suite: str, data: Path | None, options: Options, command: str
) -> list[Evaluation]:
    """Judge models by a suite; write TO/NAME for each, and TO/table.md and quality.png for all.

    Raises InputError for bad input, before anything is encoded.
    """
    refuse_file(options.to)
    found = evaluate_all(models, suite, data, options)
    tell(found, options.to, command, options.baselines)
    return found


def compare(
    given: Sequence[str], suite: str, data: Path | None, options: Options, command: str
) -> list[Evaluation]:
    """Two models or more side by side: evaluations by `evaluate`, or models, judged now.

    Raises InputError for bad input, and where models were asked different questions.
    """
    refuse_file(options.to)
    folders = {name: evaluations_in(Path(name)) for name in given}
    models = [name for name, known in folders.items() if not known]
    judged = iter(evaluate_all(models, suite, data, options) if models else [])
    read = {folder: None for known in folders.values() for folder in known}
    found = [
        one
        for known in folders.values()
        for one in (map(results.read, known) if known else [next(judged)])
    ]
    if len(found) < 2 or len(read) < sum(map(len, folders.values())):
        raise InputError(f"compare {' '.join(given)}: name two models or more, each once")
    tell(found, options.to, command, baselines=False)
    return found


def tell(found: Sequence[Evaluation], to: Path, command: str, baselines: bool) -> None:
    if all(one.meta.get("protocol") == PROTOCOL for one in found):
        by_mteb(found, to, command)
    else:
        show(found, to, command, baselines)


def evaluate_all(
    models: Sequence[str], suite: str, data: Path | None, options: Options
) -> list[Evaluation]:
    if is_mteb(suite):
        return evaluate_by_mteb(models, suite, data, options)
    chosen = find_models(models)
    config = chosen_tasks(read_suite(suite, data), options.tasks)
    asked = build_suite(Path(suite).stem, config)
    return evaluate_models(chosen, asked, options)


def evaluations_in(folder: Path) -> list[Path]:
    """The evaluation that a folder is, or those that `mic evaluate --to` wrote into it."""
    if results.is_evaluation(folder):
        return [folder.resolve()]
    below = sorted(folder.iterdir()) if folder.is_dir() else []
    return [one.resolve() for one in below if results.is_evaluation(one)]


def refuse_file(to: Path) -> None:
    if to.exists() and not to.is_dir():
        raise InputError(f"--to {to}: is a file; name a folder")
