"""Train one run: from a config to results.json in the run directory."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from torch import Tensor

from mic.collectives import rank, world_size
from mic.config.loading import to_yaml
from mic.config.schema import Config
from mic.console import notice
from mic.data.datamodule import PairDataModule
from mic.data.report import cut_share, overlap
from mic.distributed.environment import accelerator
from mic.distributed.launcher import refuse_batch, start_ranks, starts_ranks, watch_parent
from mic.distributed.preemption import Stop, listening
from mic.distributed.process_group import first_on_node, from_rank_zero, group
from mic.encoder.tokenizer import Tokenize
from mic.errors import InputError
from mic.evaluation import scoring
from mic.evaluation.scoring import RAW, Results
from mic.evaluation.tasks.tasks import Task, build_tasks, retrieval_from_pairs
from mic.files import json_value, write_json, write_text
from mic.nested import with_full
from mic.tracking import run_directory
from mic.tracking.loggers import RunLogger, build_logger, require_mirror_packages
from mic.train import untrained_baselines
from mic.train.callbacks.evaluation import flat_scores
from mic.train.module import MICModule, load_encoder
from mic.train.optimizer import whole_encoder
from mic.train.results import (
    draw_figures,
    load_results,
    print_results,
    replace_encoder,
    results_meta,
)
from mic.train.resume.compatibility import Start, examine
from mic.train.trainer import fit
from mic.train.untrained_baselines import Untrained

TRAINED = "mic"


def train(
    config: Config, overwrite: bool = False, allow_change: Sequence[str] = ()
) -> dict[str, Any]:
    """Train as `config` says; the content of the run's results.json.

    The run directory is made once encoder, data and tasks have been read and checked; results.json
    is the last file written to it. A run that is there already, with the same settings, goes on
    from its newest checkpoint, or is left as it is if it has finished. `overwrite` replaces it;
    `allow_change` names the settings that may differ (see `mic.train.resume.compatibility`).

    Raises InputError for bad input, before anything is written, RunError for a run that failed, and
    Preempted for one that was asked to stop by a signal.
    """
    if not overwrite:
        config = run_directory.with_earlier_length(config)
    if starts_ranks(config):
        start_ranks(config, overwrite, allow_change)
        return load_results(run_directory.path_of(config))
    with listening() as stop, group():
        watch_parent()
        return train_here(config, overwrite, allow_change, stop)


def train_here(
    config: Config, overwrite: bool, allow_change: Sequence[str], stop: Stop
) -> dict[str, Any]:
    """Train in this process, which may be one of several ranks."""
    started = time.monotonic()
    folder = run_directory.path_of(config)
    require_mirror_packages(config)
    start = from_rank_zero(lambda: examine(config, overwrite, allow_change))
    if start.finished:
        if rank() == 0:
            notice(f"{folder}: has finished; nothing to do (--overwrite trains it anew)")
        return load_results(folder)
    refuse_batch(config, world_size())
    seed_everything(config.seed, workers=True, verbose=False)
    module = first_on_node(lambda: MICModule(config))
    other_data = any(key.partition(".")[0] == "data" for key in allow_change)
    data = first_on_node(lambda: read_data(config, module.tokenize, other_data))
    validation, test = read_tasks(config, data)
    if module.looks_up:
        first_on_node(lambda: module.embed_texts(data))
    if start.checkpoint is not None:  # before anything is written
        data.refuse_other(start.checkpoint.read()["PairDataModule"]["data"])
    from_rank_zero(lambda: make_folder(config, module, start))
    if rank() == 0 and (share := cut_share(data)):
        notice(
            f"{share:.1%} of the training texts are longer than {data.tokenize.max_length} tokens "
            "and are cut there (encoder.max_length)"
        )
    logger = build_logger(config, folder)
    try:
        return run_training(module, data, validation, test, folder, logger, start, stop, started)
    finally:
        logger.finish()


def make_folder(config: Config, module: MICModule, start: Start) -> None:
    """Make the run's folder, or use the one that is there; add a segment to its run.json."""
    parameters = list(module.parameters())
    learning = sum(parameter.nbytes for parameter in parameters if parameter.requires_grad)
    whole = sum(parameter.nbytes for parameter in parameters)
    needed = 4 * whole + 6 * learning  # three checkpoints and the encoder
    run_directory.require_free_disk(config, needed)
    folder = run_directory.path_of(config)
    step = start.checkpoint.step if start.checkpoint else 0
    if start.checkpoint is None:
        run_directory.create(config)
    else:
        write_text(folder / "config.yaml", to_yaml(config))
        notice(f"{folder}: goes on after step {step}")
    segment = {"step": step, "ranks": world_size(), "changed": start.changed}
    run_directory.begin_segment(folder, segment)


def run_training(
    module: MICModule,
    data: PairDataModule,
    validation: Sequence[Task],
    test: Sequence[Task],
    folder: Path,
    logger: RunLogger,
    start: Start,
    stop: Stop,
    started: float,
) -> dict[str, Any]:
    """Evaluate, train, evaluate, and write everything into the run's folder."""
    config, tasks = module.config, [*validation, *test]
    dims = with_full(config.evaluation.dims, module.encoder.width)
    batch_size = config.evaluation.batch_size
    trained_on = {
        task.name: None if data.streams else overlap(data, task.evaluated) for task in tasks
    }
    before, known = measure_untrained(module, data, tasks, dims, folder, start)
    if start.checkpoint is None:
        logger.write(data_counts(data, trained_on), steps=0)
        if before.baselines:  # rank 0's
            raw = select_results(validation, before.baselines[RAW])
            logger.write(flat_scores(raw, "val"), steps=0)
    path = start.checkpoint.path if start.checkpoint else None
    speed, best = fit(module, data, validation, dims, logger, folder, path, stop, known)

    module.encoder.to(accelerator())
    after = scoring.embed_tasks(module.encoder, tasks, batch_size, "evaluating trained")
    encoder = whole_encoder(module.encoder, lambda: load_encoder(config))
    if rank() != 0:
        return from_rank_zero(dict)
    methods = {**before.baselines, TRAINED: scoring.score_tasks(tasks, after, dims)}
    final = flat_scores(select_results(validation, methods[TRAINED]), "val")
    steps = config.trainer.max_steps
    epoch = 0 if data.streams else (steps - 1) // data.order.length(0)
    logger.write({**final, **best.update(final)}, steps=steps, epoch=epoch)
    replace_encoder(encoder, folder / run_directory.ENCODER, config.encoder.save_max_length)
    trained = untrained_baselines.spread_of(after[tasks[-1].name])
    spreads = {"untrained": before.spread, "trained": trained}
    draw_figures(folder, tasks, methods, spreads, dims, config.monitor.map_dim)
    seconds = time.monotonic() - started + speed.earlier
    segments = len(run_directory.run_info(folder).get("segments", ()))
    meta = results_meta(config, data, before.baselines, trained_on, speed, seconds, segments)
    results = {**methods[TRAINED], "meta": meta}
    write_json(folder / run_directory.RESULTS, results)
    print_results(folder, tasks, methods, speed, data.dropped)
    return from_rank_zero(lambda: json_value(results))


def measure_untrained(
    module: MICModule,
    data: PairDataModule,
    tasks: Sequence[Task],
    dims: Sequence[int],
    folder: Path,
    start: Start,
) -> tuple[Untrained, dict[int, Tensor]]:
    """The untrained encoder's scores, measured now or when the run was begun, and its embeddings.

    The scores are rank 0's alone. The embeddings are those of the validation rows, by their id, or
    none where they have to be computed: a resumed run has its first validation behind it, and a
    frozen backbone's head may not start as the identity.
    """
    untrained = None if start.checkpoint is None else untrained_baselines.read_untrained(folder)
    if untrained is not None:
        return untrained, {}
    module.encoder.to(accelerator())
    batch_size = module.config.evaluation.batch_size
    before = scoring.embed_tasks(module.encoder, tasks, batch_size, "evaluating untrained")
    baselines = {}
    if rank() == 0:
        baselines = untrained_baselines.score_untrained(module, data, tasks, before, dims)
    untrained = Untrained(baselines, untrained_baselines.spread_of(before[tasks[-1].name]))
    if rank() == 0:
        untrained_baselines.write_untrained(folder, untrained)
    if module.config.encoder.frozen:
        return untrained, {}
    return untrained, untrained_baselines.known_embeddings(data, tasks, before)


def data_counts(data: PairDataModule, trained_on: Mapping[str, int | None]) -> dict[str, float]:
    """The counts of the data that are logged before the first step, by their logged names."""
    counts = {
        "data/skipped_rows": data.skipped,
        "data/left_out_rows": None if data.streams else data.order.left_out(0),
        **{f"data/overlap/{task}": count for task, count in trained_on.items()},
    }
    return {name: count for name, count in counts.items() if count is not None}


def select_results(tasks: Sequence[Task], results: Results) -> Results:
    return {task.name: results[task.name] for task in tasks}


def read_data(
    config: Config, tokenize: Tokenize, allow_data_change: bool = False
) -> PairDataModule:
    """The training and validation rows of a config. Raises InputError for bad ones."""
    return PairDataModule(
        config.data,
        tokenize,
        batch_size=config.trainer.batch_size,
        batch_tokens=config.trainer.batch_tokens,
        seed=config.seed,
        allow_data_change=allow_data_change,
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
