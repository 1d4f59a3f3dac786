"""Evaluate models at every width: `mic evaluate MODEL...` and `mic compare A B ...`."""

from collections.abc import Sequence
from pathlib import Path

from mic.errors import InputError
from mic.evaluation import results
from mic.evaluation.evaluate import Options, build_suite, evaluate_models
from mic.evaluation.models import find_models
from mic.evaluation.mteb.run import PROTOCOL, evaluate_by_mteb
from mic.evaluation.mteb.suite import is_mteb
from mic.evaluation.mteb.summary import show_mteb_evaluations
from mic.evaluation.results import Evaluation
from mic.evaluation.summary import show_evaluations
from mic.evaluation.tasks.suite import chosen_tasks, read_suite


def evaluate(
    models: Sequence[str], suite: str, data: Path | None, options: Options, command: str
) -> list[Evaluation]:
    """Evaluate models by a suite; write TO/NAME for each, and TO/table.md and quality.png for all.

    Raises InputError for bad input, before anything is encoded.
    """
    results.refuse_file(options.to)
    evaluations = evaluate_by_suite(models, suite, data, options)
    show_by_protocol(evaluations, options.to, command, options.baselines)
    return evaluations


def compare(
    given: Sequence[str], suite: str, data: Path | None, options: Options, command: str
) -> list[Evaluation]:
    """Compare two models or more: folders of evaluations, or models, which are evaluated first.

    Raises InputError for bad input, and where the models' tasks have different data.
    """
    results.refuse_file(options.to)
    folders = {name: evaluations_in(Path(name)) for name in given}
    models = [name for name, known in folders.items() if not known]
    evaluated = iter(evaluate_by_suite(models, suite, data, options) if models else [])
    read = {folder: None for known in folders.values() for folder in known}
    evaluations = [
        evaluation
        for known in folders.values()
        for evaluation in (map(results.read_evaluation, known) if known else [next(evaluated)])
    ]
    if len(evaluations) < 2 or len(read) < sum(map(len, folders.values())):
        raise InputError(f"compare {' '.join(given)}: name two models or more, each once")
    show_by_protocol(evaluations, options.to, command, baselines=False)
    return evaluations


def show_by_protocol(
    evaluations: Sequence[Evaluation], to: Path, command: str, baselines: bool
) -> None:
    if all(evaluation.meta.get("protocol") == PROTOCOL for evaluation in evaluations):
        show_mteb_evaluations(evaluations, to, command)
    else:
        show_evaluations(evaluations, to, command, baselines)


def evaluate_by_suite(
    models: Sequence[str], suite: str, data: Path | None, options: Options
) -> list[Evaluation]:
    if is_mteb(suite):
        return evaluate_by_mteb(models, suite, data, options)
    chosen = find_models(models, options.trust_remote_code)
    config = chosen_tasks(read_suite(suite, data), options.tasks)
    return evaluate_models(chosen, build_suite(Path(suite).stem, config), options)


def evaluations_in(folder: Path) -> list[Path]:
    """The evaluation that a folder is, or those that `mic evaluate --to` wrote into it."""
    if results.is_evaluation(folder):
        return [folder.resolve()]
    below = sorted(folder.iterdir()) if folder.is_dir() else []
    return [evaluation.resolve() for evaluation in below if results.is_evaluation(evaluation)]
