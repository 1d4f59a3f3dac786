"""What each command does; nothing heavy is imported before it is needed."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mic.config.loading import load, to_yaml
from mic.config.schema import Config
from mic.distributed.launcher import start_ranks, starts_ranks
from mic.errors import InputError
from mic.files import replacing
from mic.sweep.engines.wandb_trial import placed


def train(options: argparse.Namespace) -> None:
    config = placed(load(options.config, *options.overrides))
    if options.print_config:
        print(to_yaml(config), end="")
    else:
        run(config, options.overwrite, options.allow_change)


def resume(options: argparse.Namespace) -> None:
    folder: Path = options.folder
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no run; it has no config.yaml")
    whole = folder.absolute()  # the run may have been moved since
    places = (f"name={json.dumps(whole.name)}", f"runs={json.dumps(str(whole.parent))}")
    if folder.name and not folder.is_absolute():
        places = (f"name={json.dumps(folder.name)}", f"runs={json.dumps(str(folder.parent))}")
    run(load(folder / "config.yaml", *options.overrides, *places), False, options.allow_change)


def run(config: Config, overwrite: bool, allow_change: Sequence[str]) -> None:
    if starts_ranks(config):  # before ten seconds of imports
        start_ranks(config, overwrite, allow_change)
        return
    quiet()
    from mic.train.run import train

    train(config, overwrite, allow_change)


def data(options: argparse.Namespace) -> None:
    config = load(options.config, *options.overrides)
    quiet()
    from mic.data.report import corpus_report
    from mic.train.module import load_encoder
    from mic.train.run import read_data, read_tasks

    data = read_data(config, load_encoder(config).tokenize)
    validation, test = read_tasks(config, data, required=False)
    for paragraph in corpus_report(data, [*validation, *test]):
        print(paragraph, flush=True)
        print()


def report(options: argparse.Namespace) -> None:
    if options.sweep is None:
        if not options.runs:
            raise InputError("report: name a run directory, or --sweep DIR")
        from mic.report.run_report import report

        print(report(options.runs, options.to))
        return
    if options.runs or options.to is not None:
        also = f"RUN {options.runs[0]}" if options.runs else f"--to {options.to}"
        raise InputError(
            f"--sweep {options.sweep}: takes no {also}; a sweep's report goes into its own folder"
        )
    from mic.sweep.report.sweep_report import report_sweep

    print(report_sweep(options.sweep))


def quiet() -> None:
    """Silence what the libraries say of themselves, so that our own lines can be read."""
    import logging
    import warnings

    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="lightning")
    warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")


def encode(options: argparse.Namespace) -> None:
    import json

    from mic.console import bar
    from mic.encoder.encoder import Encoder

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

    with replacing(options.output) as partial, partial.open("wb") as stream:
        np.save(stream, vectors)


def export(options: argparse.Namespace) -> None:
    quiet()
    from mic.export.export import Wanted, export

    told = vars(options)
    for line in export(Wanted(**{name: told[name] for name in Wanted._fields})):
        print(line)


def sweep(options: argparse.Namespace) -> None:
    from mic.sweep import run as sweeps
    from mic.sweep.sweep_file import read_sweep

    status, file = sweeps.file_of(options.words)
    found = read_sweep(file)
    storage = options.storage or os.environ.get("MIC_STORAGE") or None
    if status:
        sweeps.show_status(found, storage)
    elif options.dry_run:
        sweeps.dry_run(found)
    elif options.engine == "wandb":
        from mic.sweep.engines.wandb import register

        print(register(found))
    elif options.slurm:
        from mic.sweep.engines.slurm import array_job

        given = {"--storage": options.storage, "--retries": options.retries}
        kept = [f"{name}={value}" for name, value in given.items() if value is not None]
        print(array_job(found, options.workers, kept))
    else:
        sweeps.work_on(found, storage, options.retries, options.retry_failed, options.workers)


def sync(options: argparse.Namespace) -> None:
    from mic.report.wandb_replay import sync

    print(sync(options.folder))


def dashboard(options: argparse.Namespace) -> None:
    from mic.tracking.wandb import dashboard

    dashboard.refuse_missing()
    if options.print:
        workspace = dashboard.build(options.project, options.entity or "", options.dims)
        print(dashboard.as_json(workspace))
    else:
        print(dashboard.save(options.project, options.entity, options.dims))
