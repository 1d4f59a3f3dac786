"""`mic evaluate` and `mic compare`: the quality of models at every width."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mic.cli.arguments import add_trust_remote_code, count, names, widths

if TYPE_CHECKING:
    from mic.evaluation.evaluate import Options


MODELS = "a run directory, a model folder, package:NAME or a Hub name"


def add_evaluate(actions: Any) -> None:
    evaluate = actions.add_parser(
        "evaluate",
        help="evaluate models at every width",
        description="Evaluate models on a suite of tasks at every width, from one encoding of each "
        "text, beside the baselines that need no training. Runs that differ by their seed alone "
        "are shown as mean and 95 % interval; different models are compared by a paired bootstrap. "
        "The same command continues after an interruption.",
    )
    evaluate.add_argument("models", metavar="MODEL", nargs="+", help=MODELS)
    add_common(evaluate)
    evaluate.add_argument(
        "--no-baselines", dest="baselines", action="store_false", help="the models alone"
    )
    evaluate.set_defaults(run=run_evaluate, action="evaluate", to=Path("evaluation"))


def add_compare(actions: Any) -> None:
    compare = actions.add_parser(
        "compare",
        help="two models or more side by side",
        description="Models side by side at every width, with a paired bootstrap of their "
        "differences: folders that `mic evaluate` wrote, or models, which are evaluated first.",
    )
    compare.add_argument(
        "models", metavar="A", nargs="+", help=f"a folder that `mic evaluate` wrote, or {MODELS}"
    )
    add_common(compare)
    compare.set_defaults(run=run_compare, action="compare", to=Path("comparison"), baselines=False)


def add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--suite",
        default="paper",
        help="a YAML file of tasks, or `paper` (the default); of mteb a benchmark, as "
        "`MTEB(eng, v2)` or mteb:BEIR, any tasks with `mteb`, local files with mteb:FILE",
    )
    command.add_argument(
        "--tasks", type=names, default=[], help="these of the suite alone, as STS12,SICK-R"
    )
    command.add_argument("--data", metavar="DIR", type=Path, help="where its paths start")
    command.add_argument(
        "--dims", type=widths, default=[], help="as 16,32,64 (default: the run's, or 16 to all)"
    )
    add_trust_remote_code(command)
    command.add_argument("--batch-size", type=count, default=64, help="texts at a time")
    command.add_argument("--to", metavar="DIR", type=Path, help="where everything is written")


def run_evaluate(options: argparse.Namespace) -> None:
    from mic.evaluation.run import evaluate

    evaluate(
        options.models,
        options.suite,
        options.data,
        evaluation_options(options),
        repeat_command(options),
    )


def run_compare(options: argparse.Namespace) -> None:
    from mic.evaluation.run import compare

    compare(
        options.models,
        options.suite,
        options.data,
        evaluation_options(options),
        repeat_command(options),
    )


def evaluation_options(options: argparse.Namespace) -> "Options":
    from mic.evaluation.evaluate import Options

    return Options(
        options.to,
        options.dims,
        options.batch_size,
        options.baselines,
        options.tasks,
        options.trust_remote_code,
    )


def repeat_command(options: argparse.Namespace) -> str:
    """The command line that repeats this evaluation."""
    words = ["mic", options.action, *options.models, "--suite", options.suite]
    words += ["--tasks", ",".join(options.tasks)] if options.tasks else []
    words += ["--data", str(options.data)] if options.data else []
    words += ["--dims", ",".join(map(str, options.dims))] if options.dims else []
    words += ["--trust-remote-code"] if options.trust_remote_code else []
    return shlex.join([*words, "--to", str(options.to)])
