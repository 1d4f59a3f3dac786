"""One training run from a config to results.json."""

import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from rich.console import Console
from torch import Tensor

from mic import evaluate, figures, rundir
from mic.batch import signed
from mic.callbacks import Throughput
from mic.callbacks.evaluation import flat
from mic.callbacks.geometry import nearest
from mic.corpus_report import overlap
from mic.data import PairDataModule
from mic.errors import InputError
from mic.evaluate import PCA, RAW, Results
from mic.examples import number
from mic.fit import fit
from mic.geometry import covariance, cross_correlation
from mic.loggers import RunLogger, build_logger, refuse_missing
from mic.module import MICModule
from mic.nested import unit, with_full
from mic.progress import bar
from mic.settings import Config
from mic.tasks import Task, build_tasks, fingerprints, retrieval_from_pairs
from mic.tokenization import Tokenize

TRAINED = "mic"
PACKAGES = (
    "mic-embeddings",
    "torch",
    "lightning",
    "transformers",
    "datasets",
    "numpy",
    "scikit-learn",
)


def train(config: Config, overwrite: bool = False) -> dict[str, Any]:
    """Train as `config` says and return what the run's results.json holds.

    The run directory is made once encoder, data and tasks have been read and checked; results.json
    is the last thing written to it. `overwrite` replaces an earlier run of the same name.

    Raises InputError for bad input, before anything is written, and RunError for a run that failed.
    """
    started = time.monotonic()
    rundir.refuse_existing(config, overwrite)
    refuse_missing(config)
    seed_everything(config.seed, workers=True, verbose=False)
    module = MICModule(config)
    data = read_data(config, module.encoder.tokenize)
    validation, test = read_tasks(config, data)
    if config.teacher.kind == "cached":
        module.fill_teacher(data.texts())
    if module.teacher is not None:
        data.prepare = module.teacher.prepare
    weights = sum(one.numel() * one.element_size() for one in module.encoder.parameters())
    rundir.refuse_full_disk(config, weights)
    folder = rundir.create(config, overwrite)
    logger = build_logger(config, folder)
    try:
        return run(module, data, validation, test, folder, logger, started)
    finally:
        logger.finish()


def run(
    module: MICModule,
    data: PairDataModule,
    validation: Sequence[Task],
    test: Sequence[Task],
    folder: Path,
    logger: RunLogger,
    started: float,
) -> dict[str, Any]:
    """Evaluate, train, evaluate, and write everything into the run's folder."""
    config, tasks = module.config, [*validation, *test]
    dims = with_full(config.evaluation.dims, module.encoder.width)
    batch_size = config.evaluation.batch_size
    before = evaluate.embed_tasks(module.encoder, tasks, batch_size, "evaluating untrained")
    methods = baselines(module, data, tasks, before, dims)
    trained_on = {task.name: None if data.streams else overlap(data, task.judged) for task in tasks}
    about_data = {
        "data/skipped_rows": data.skipped,
        "data/left_out_rows": None if data.streams else data.order.left_out(0),
        **{f"data/overlap/{task}": count for task, count in trained_on.items()},
    }
    known: dict[str, float] = {key: one for key, one in about_data.items() if one is not None}
    logger.write(known, steps=0)
    logger.write(flat(scores_of(validation, methods[RAW]), "val"), steps=0)
    module.known = known_embeddings(data, tasks, before)
    speed = fit(module, data, validation, dims, logger, folder)

    after = evaluate.embed_tasks(module.encoder, tasks, batch_size, "evaluating trained")
    methods[TRAINED] = evaluate.score_tasks(tasks, after, dims)
    final = flat(scores_of(validation, methods[TRAINED]), "val")
    steps = config.trainer.max_steps
    epoch = 0 if data.streams else (steps - 1) // data.order.length(0)
    logger.write(final, steps=steps, epoch=epoch)
    module.encoder.save(folder / rundir.ENCODER)
    draw(
        folder,
        tasks,
        methods,
        {"untrained": before, "trained": after},
        dims,
        config.monitor.map_dim,
    )
    results: dict[str, Any] = {
        **methods[TRAINED],
        "meta": {
            "baselines": {RAW: methods[RAW], PCA: methods[PCA]},
            "seed": config.seed,
            "steps": config.trainer.max_steps,
            "pairs_per_second": speed.pairs_per_second,
            "seconds": time.monotonic() - started,
            "rows": data.rows,
            "skipped_rows": data.skipped,
            "texts_trained_on": trained_on,
            "data": {
                **data.hashes,
                **fingerprints(config.evaluation.validation),
                **fingerprints(config.evaluation.test),
            },
            "versions": {"python": sys.version.split()[0], **versions()},
            "git_commit": git_commit(),
        },
    }
    rundir.write_json(folder / rundir.RESULTS, results)
    show(folder, tasks, methods, speed, data.skipped)
    return rundir.plain(results)  # type: ignore[no-any-return]


def read_data(config: Config, tokenize: Tokenize) -> PairDataModule:
    """The training and validation rows of a config. Raises InputError for bad ones."""
    return PairDataModule(
        config.data,
        tokenize,
        batch_size=config.trainer.batch_size,
        batch_tokens=config.trainer.batch_tokens,
        seed=config.seed,
    )


def read_tasks(
    config: Config, data: PairDataModule, required: bool = True
) -> tuple[list[Task], list[Task]]:
    """The validation and the test tasks; held-out pairs when no validation task is given."""
    validation = build_tasks(config.evaluation.validation)
    test = build_tasks(config.evaluation.test)
    held_out = list(data.validation.texts())
    if not validation and len(held_out[0]) > 1:
        validation = [retrieval_from_pairs("heldout", held_out)]
    names = [task.name for task in (*validation, *test)]
    for name in names:
        if names.count(name) > 1 or name == "meta":
            raise InputError(f"evaluation task {name!r}: the name is taken; give each its own")
    if required and not names:
        raise InputError(
            "evaluation: no task; set evaluation.validation.sts.NAME.path=FILE and .columns, "
            "or `pairs`, `retrieval`, `classification`, `pair_classification` or `clustering`"
        )
    return validation, test


def known_embeddings(
    data: PairDataModule, tasks: Sequence[Task], before: Mapping[str, Tensor]
) -> dict[int, Tensor]:
    """The validation rows' embeddings by the number of their text, if tasks have them all."""
    wanted = {text for row in data.validation.texts() for text in row[:2]}
    known = {
        signed(number(text)): row
        for task in tasks
        for text, row in zip(task.texts, before[task.name], strict=True)
        if text in wanted
    }
    return known if len(known) == len(wanted) else {}


def baselines(
    module: MICModule,
    data: PairDataModule,
    tasks: Sequence[Task],
    before: Mapping[str, Tensor],
    dims: Sequence[int],
) -> dict[str, Results]:
    """What the untrained encoder scores: cut as it is, and by a PCA fitted on training texts."""
    settings = module.config.evaluation
    rows = data.sample(settings.pca_texts, module.config.seed)
    texts = sorted({text for row in rows for text in row[:2]})
    chosen = random.Random(module.config.seed).sample(texts, min(settings.pca_texts, len(texts)))
    with bar("fitting PCA", len(chosen)) as advance:
        fitted_on = module.encoder.embed(chosen, batch_size=settings.batch_size, progress=advance)
    pca = evaluate.fit_pca(fitted_on)
    projected = {name: pca(embeddings) for name, embeddings in before.items()}
    return {
        RAW: evaluate.score_tasks(tasks, before, dims),
        PCA: evaluate.score_tasks(tasks, projected, dims),
    }


def scores_of(tasks: Sequence[Task], results: Results) -> Results:
    return {task.name: results[task.name] for task in tasks}


def draw(
    folder: Path,
    tasks: Sequence[Task],
    methods: Mapping[str, Results],
    states: Mapping[str, Mapping[str, Tensor]],
    dims: Sequence[int],
    map_dim: int,
) -> None:
    """The run's figures, on the texts of the last task."""
    to = folder / rundir.FIGURES
    to.mkdir(exist_ok=True)
    last = tasks[-1]
    embeddings = {state: found[last.name] for state, found in states.items()}
    count = len(last.texts)
    made = f"made by `mic train {folder / 'config.yaml'}`"
    headlines = {task.name: task.headline for task in tasks}
    figures.save(
        figures.quality(headlines, methods, f"run {folder.name}; {made}"), to / "quality.png"
    )
    texts = f"{count:,} texts of {last.name}; {made}"
    spreads = {state: covariance(unit(rows)) for state, rows in embeddings.items()}
    variances = {state: spread.diagonal() for state, spread in spreads.items()}
    of = "variance of each coordinate of unit vectors over its mean"
    figures.save(figures.variance(variances, dims, f"{of}; {texts}"), to / "variance.png")
    shown = nearest(dims, map_dim)
    if shown is not None:
        maps = {state: cross_correlation(spread, shown) for state, spread in spreads.items()}
        figures.save(
            figures.correlation_map(maps, dims, count, texts), to / "cross_correlation.png"
        )


def show(
    folder: Path,
    tasks: Sequence[Task],
    methods: Mapping[str, Results],
    speed: Throughput,
    skipped: int | None,
) -> None:
    """Print the tables and where everything is."""
    console = Console()
    for task in tasks:
        console.print(evaluate.results_table(task, methods))
    if skipped:
        console.print(f"{skipped:,} rows without text were skipped.", highlight=False)
    console.print(
        f"{speed.pairs:,} pairs at {speed.pairs_per_second:.0f} pairs/s. "
        f"Figures, results.json and the encoder are in {folder}; use it:\n"
        f"  mic encode {folder} --dim 64 < sentences.txt\n"
        f"  mic report {folder}",
        highlight=False,
        soft_wrap=True,
    )


def versions() -> dict[str, str]:
    return {package: version(package) for package in PACKAGES}


def git_commit() -> str | None:
    """The commit of the checkout that mic runs from; None outside one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
