"""`mic evaluate` and `mic compare`: their words; nothing heavy is imported before it is needed."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mic.cli.arguments import count, names, widths

if TYPE_CHECKING:
    from mic.evaluation.evaluate import Options


def add_commands(actions: Any) -> None:
    evaluate = actions.add_parser(
        "evaluate",
        help="judge models at every width",
        description="Judge models by a suite of tasks at every width, from one encoding of each "
        "text, beside the baselines that need no training. Runs that differ by their seed alone "
        "are shown as mean and 95 % interval; of different models it is said who beats whom. The "
        "same command goes on after an interruption.",
    )
    compare = actions.add_parser(
        "compare",
        help="two models or more side by side",
        description="Models side by side at every width, with a paired bootstrap of who beats "
        "whom: folders that `mic evaluate` wrote, or models, which are evaluated first.",
    )
    models = "a run directory, a model folder, package:NAME or a Hub name"
    evaluate.add_argument("models", metavar="MODEL", nargs="+", help=models)
    compare.add_argument(
        "models", metavar="A", nargs="+", help=f"a folder that `mic evaluate` wrote, or {models}"
    )
    for command in (evaluate, compare):
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
        command.add_argument("--batch-size", type=count, default=64, help="texts at a time")
        command.add_argument("--to", metavar="DIR", type=Path, help="where everything is written")
    evaluate.add_argument(
        "--no-baselines", dest="baselines", action="store_false", help="the models alone"
    )
    evaluate.set_defaults(run=run_evaluate, action="evaluate", to=Path("evaluation"))
    compare.set_defaults(run=run_compare, action="compare", to=Path("comparison"), baselines=False)


def run_evaluate(options: argparse.Namespace) -> None:
    from mic.evaluation.run import evaluate

    evaluate(options.models, options.suite, options.data, how(options), told(options))


def run_compare(options: argparse.Namespace) -> None:
    from mic.evaluation.run import compare

    compare(options.models, options.suite, options.data, how(options), told(options))


def how(options: argparse.Namespace) -> "Options":
    from mic.evaluation.evaluate import Options

    return Options(options.to, options.dims, options.batch_size, options.baselines, options.tasks)


def told(options: argparse.Namespace) -> str:
    """The command as one may type it again."""
    words = ["mic", options.action, *options.models, "--suite", options.suite]
    words += ["--tasks", ",".join(options.tasks)] if options.tasks else []
    words += ["--data", str(options.data)] if options.data else []
    words += ["--dims", ",".join(map(str, options.dims))] if options.dims else []
    return shlex.join([*words, "--to", str(options.to)])
