"""The command line: `mic train CONFIG [key=value ...]`, `mic data CONFIG`, `mic encode MODEL`.

Exit codes: 0 done, 1 failed, 2 bad input, 143 asked to stop with the state saved.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, get_args, get_origin

from mic import __version__
from mic.cli import commands
from mic.cli.advise import add_advise
from mic.cli.arguments import count, dims
from mic.cli.evaluate import add_commands
from mic.cli.export import export_command
from mic.config.loading import Config, keys
from mic.distributed.environment import in_slurm
from mic.distributed.failures import BAD_INPUT, STOPPED, report
from mic.errors import InputError, Preempted, RunError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; one line on standard error when it fails."""
    options = parse(arguments)
    try:
        options.run(options)
    except Preempted as error:
        return complain(error, STOPPED)
    except InputError as error:
        return complain(error, BAD_INPUT)
    except RunError as error:
        return complain(error, 1)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
    except KeyboardInterrupt:
        return complain(RunError("stopped"), 1)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        return complain(error, 1)
    except Exception as error:
        if not report(error, 1):  # to the process that started this rank
            raise
        return 1
    return 0


def entry() -> None:
    """The command, to the end of its process; a rank that failed waits for nobody on its way."""
    code = main()
    if code and ("RANK" in os.environ or in_slurm()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with key=value overrides also where they follow an --option."""
    top = parser()
    options, rest = top.parse_known_args(arguments)
    if any(text.startswith("-") for text in rest) or (rest and "overrides" not in options):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return options


def complain(error: Exception, code: int) -> int:
    """Say what is wrong, unless another rank or the process that started this one does."""
    if code == STOPPED:
        said = getattr(error, "said", False)
        if not said:
            print(f"mic: {error}", file=sys.stderr)
    elif not report(error, code) and not getattr(error, "said", False):
        print(f"mic: error: {error}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="mic", description="Text embeddings whose every prefix is a good embedding."
    )
    top.add_argument("--version", action="version", version=f"mic {__version__}")
    actions = top.add_subparsers(required=True, metavar="COMMAND")

    train = actions.add_parser(
        "train",
        help="train an encoder as a config says",
        description="Train an encoder as CONFIG says; key=value overrides come last.",
        epilog=describe_keys(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("config", metavar="CONFIG", help="a YAML file")
    train.add_argument("overrides", metavar="key=value", nargs="*", help="one of the keys below")
    train.add_argument(
        "--print-config", action="store_true", help="show the resolved YAML and stop"
    )
    train.add_argument("--overwrite", action="store_true", help="replace a run of the same name")
    allow_change(train)
    train.set_defaults(run=commands.train)

    resume = actions.add_parser(
        "resume",
        help="go on with a run that was interrupted",
        description="Go on with a run at its newest checkpoint, as `mic train` of its config does.",
    )
    resume.add_argument("folder", metavar="RUN", type=Path, help="a run directory")
    resume.add_argument(
        "overrides", metavar="key=value", nargs="*", help="as trainer.max_steps=200"
    )
    allow_change(resume)
    resume.set_defaults(run=commands.resume)

    data = actions.add_parser(
        "data",
        help="what a config would train on",
        description="Read the corpora of CONFIG and report, in Markdown, rows, lengths, repeats, "
        "overlap with evaluation, and padding; nothing is trained.",
    )
    data.add_argument("config", metavar="CONFIG", help="a YAML file")
    data.add_argument("overrides", metavar="key=value", nargs="*", help="see `mic train --help`")
    data.set_defaults(run=commands.data)

    encode = actions.add_parser(
        "encode",
        help="sentences on standard input to vectors",
        description="Read a sentence a line from standard input; write its vector, of length 1.",
    )
    encode.add_argument(
        "model", metavar="MODEL", help="a run directory, a model folder or a Hub name"
    )
    encode.add_argument("--dim", type=int, help="numbers kept of each vector (default: all)")
    encode.add_argument("--output", type=Path, help="write a .npy file instead of JSON lines")
    encode.add_argument("--batch-size", type=int, default=64, help="sentences at a time")
    encode.set_defaults(run=commands.encode)

    export_command(actions).set_defaults(run=commands.export)

    report = actions.add_parser(
        "report",
        help="runs as one HTML page and pictures",
        description="Write what a run has measured, so far or to its end, as one HTML page that "
        "needs no network, and as PNGs: RUN/report.html and RUN/figures/report. Several runs are "
        "compared, with mean and 95 % interval over those that differ by their seed alone. Of a "
        "sweep: its table, what is best at each width, what matters, and the best config.",
    )
    report.add_argument("runs", metavar="RUN", nargs="*", type=Path, help="a run directory")
    report.add_argument(
        "--sweep",
        metavar="DIR",
        type=Path,
        help="a sweep's folder, in the place of runs; table.csv, table.md, best.yaml, report.html "
        "and figures go into it",
    )
    report.add_argument(
        "--to", metavar="FOLDER", type=Path, help="where page and PNGs go (needed for several runs)"
    )
    report.set_defaults(run=commands.report)

    add_commands(actions)
    add_advise(actions)
    sweep_command(actions)

    sync = actions.add_parser(
        "sync",
        help="replay a run into Weights & Biases",
        description="Replay a run's own log, figures and results into one W&B run; one that is "
        "there already is not touched: the replay is a new run beside it, to keep in its place.",
    )
    sync.add_argument("folder", metavar="RUN", type=Path, help="a run directory")
    sync.set_defaults(run=commands.sync)

    dashboard = actions.add_parser(
        "dashboard",
        help="make a Weights & Biases workspace",
        description="Save a view into a W&B project: loss terms, collapse, redundancy and quality "
        "of every prefix, speed, groups of seeds, sweeps.",
    )
    dashboard.add_argument("project", metavar="PROJECT", help="a W&B project")
    dashboard.add_argument("--entity", help="its user or team (default: the key's own)")
    dashboard.add_argument(
        "--dims",
        type=dims,
        default=[*Config().dims, 384],
        help="widths to show, the full one last (default: 16,32,64,128,256,384)",
    )
    dashboard.add_argument("--print", action="store_true", help="show its JSON and send nothing")
    dashboard.set_defaults(run=commands.dashboard)
    return top


def sweep_command(actions: Any) -> None:
    sweep = actions.add_parser(
        "sweep",
        help="many runs of one config, chosen by a sweep file",
        description="Work on the trials of FILE, a sweep in W&B's format; on as many machines as "
        "see the same runs folder and storage. The same command goes on after any interruption. "
        "`mic sweep status FILE` shows how far it is.",
    )
    sweep.add_argument("words", metavar="[status] FILE", nargs="+", help="a sweep file")
    sweep.add_argument(
        "--workers",
        type=count,
        default=1,
        metavar="N",
        help="trials at a time on this machine (default: 1)",
    )
    sweep.add_argument(
        "--storage",
        metavar="URL",
        help="any Optuna storage, as postgresql://USER@HOST/NAME (default: $MIC_STORAGE, else a "
        "journal file in the sweep's folder)",
    )
    sweep.add_argument(
        "--retries", type=int, metavar="N", help="tries of a failing trial beyond the first (2)"
    )
    sweep.add_argument(
        "--retry-failed", action="store_true", help="first try anew what has failed for good"
    )
    sweep.add_argument(
        "--engine",
        choices=("optuna", "wandb"),
        default="optuna",
        help="wandb: register the sweep there and print the agents' command",
    )
    sweep.add_argument(
        "--slurm", action="store_true", help="write an array job with a task a worker, and stop"
    )
    sweep.add_argument("--dry-run", action="store_true", help="list the trials, and stop")
    sweep.set_defaults(run=commands.sweep)


def allow_change(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-change",
        metavar="KEY",
        action="append",
        default=[],
        help="go on with the run although this setting, or section, is another; may be repeated",
    )


def describe_keys() -> str:
    """Every config key with its type, default and meaning, from the dataclasses."""
    lines = ["keys (type, default): meaning"]
    for name, kind, item in keys(Config):
        default = item.default if item.default is not MISSING else item.default_factory()
        shown = {"???": "required"}.get(str(default), str(default))
        lines.append(f"  {name} ({type_name(kind)}, {shown})\n      {item.metadata['help']}")
    return "\n".join(lines)


def type_name(kind: Any) -> str:
    """A type as a user writes it.

    >>> type_name(list[int | str]), type_name(int | None), type_name(float)
    ('list of int or str', 'int or null', 'float')
    """
    inner = get_args(kind)
    if kind is type(None):
        return "null"
    if get_origin(kind) is list:
        return f"list of {type_name(inner[0])}"
    if inner:
        return " or ".join(type_name(one) if isinstance(one, type) else str(one) for one in inner)
    return str(kind.__name__)


if __name__ == "__main__":
    entry()
