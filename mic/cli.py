"""The command line: `mic train CONFIG [key=value ...]`, `mic data CONFIG`, `mic encode MODEL`.

Nothing heavy is imported before a command needs it. Exit codes: 0 done, 1 failed, 2 bad input.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, get_args, get_origin

from mic import __version__
from mic.config import Config, keys, load, to_yaml
from mic.errors import InputError, RunError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; one line on standard error when it fails."""
    options = parse(arguments)
    try:
        options.run(options)
    except InputError as error:
        return complain(error, 2)
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
    return 0


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
    print(f"mic: error: {error}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="mic", description="Text embeddings whose every prefix is a good embedding."
    )
    top.add_argument("--version", action="version", version=f"mic {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser(
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
    train.set_defaults(run=run_train)

    data = commands.add_parser(
        "data",
        help="what a config would train on",
        description="Read the corpora of CONFIG and report, in Markdown, rows, lengths, repeats, "
        "overlap with evaluation, and padding; nothing is trained.",
    )
    data.add_argument("config", metavar="CONFIG", help="a YAML file")
    data.add_argument("overrides", metavar="key=value", nargs="*", help="see `mic train --help`")
    data.set_defaults(run=run_data)

    encode = commands.add_parser(
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
    encode.set_defaults(run=run_encode)

    report = commands.add_parser(
        "report",
        help="runs as one HTML page and pictures",
        description="Write what a run has measured, so far or to its end, as one HTML page that "
        "needs no network, and as PNGs: RUN/report.html and RUN/figures/report. Several runs are "
        "compared, with mean and 95 % interval over those that differ by their seed alone.",
    )
    report.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a run directory")
    report.add_argument(
        "--to", metavar="FOLDER", type=Path, help="where page and PNGs go (needed for several runs)"
    )
    report.set_defaults(run=run_report)

    sync = commands.add_parser(
        "sync",
        help="replay a run into Weights & Biases",
        description="Replay a run's own log, figures and results into one W&B run; one that is "
        "there already is not touched: the replay is a new run beside it, to keep in its place.",
    )
    sync.add_argument("folder", metavar="RUN", type=Path, help="a run directory")
    sync.set_defaults(run=run_sync)

    dashboard = commands.add_parser(
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
    dashboard.set_defaults(run=run_dashboard)
    return top


def run_train(options: argparse.Namespace) -> None:
    config = load(options.config, *options.overrides)
    if options.print_config:
        print(to_yaml(config), end="")
        return
    quiet()
    from mic.train import train  # ten seconds of imports

    train(config, overwrite=options.overwrite)


def run_data(options: argparse.Namespace) -> None:
    config = load(options.config, *options.overrides)
    quiet()
    from mic.corpus_report import corpus_report
    from mic.module import load_encoder
    from mic.train import read_data, read_tasks

    data = read_data(config, load_encoder(config).tokenize)
    validation, test = read_tasks(config, data, required=False)
    for paragraph in corpus_report(data, [*validation, *test]):
        print(paragraph, flush=True)
        print()


def run_report(options: argparse.Namespace) -> None:
    from mic.report import report

    print(report(options.runs, options.to))


def quiet() -> None:
    """Silence what the libraries say of themselves, so that our own lines can be read."""
    import logging
    import warnings

    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="lightning")
    warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")


def run_encode(options: argparse.Namespace) -> None:
    import json

    from mic.encoder import Encoder
    from mic.progress import bar

    if sys.stdin.isatty():
        print("mic: reading sentences, one a line, until Ctrl-D", file=sys.stderr)
    try:
        texts = [line.rstrip("\n") for line in sys.stdin]
    except UnicodeDecodeError:
        raise InputError("standard input: not UTF-8; convert it with `iconv -t utf-8`") from None
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise InputError(f"standard input: line {number} is empty; remove it")
    encoder = Encoder.from_pretrained(options.model)
    with bar("encoding", len(texts)) as advance:
        vectors = encoder.encode(
            texts, batch_size=options.batch_size, dim=options.dim, progress=advance
        )
    if options.output is None:
        for vector in vectors.tolist():
            print(json.dumps(vector))
        return
    import numpy as np

    partial = options.output.with_name(f".{options.output.name}.partial")
    with partial.open("wb") as stream:
        np.save(stream, vectors)
    partial.replace(options.output)


def run_sync(options: argparse.Namespace) -> None:
    from mic.sync import sync

    print(sync(options.folder))


def run_dashboard(options: argparse.Namespace) -> None:
    from mic import dashboard

    dashboard.refuse_missing()
    if options.print:
        workspace = dashboard.build(options.project, options.entity or "", options.dims)
        print(dashboard.as_json(workspace))
    else:
        print(dashboard.save(options.project, options.entity, options.dims))


def dims(text: str) -> list[int]:
    """Widths as one writes them.

    >>> dims("16,64")
    [16, 64]
    """
    found = [int(one) for one in text.split(",")]
    if found[0] < 1 or len(found) < 2 or found != sorted(set(found)):
        raise argparse.ArgumentTypeError(f"{text}: two widths or more that increase, as 16,64,384")
    return found


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
    sys.exit(main())
