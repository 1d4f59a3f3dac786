"""A run's mirror in Weights & Biases, which may be slow, dead or absent without harm.

mic counts steps by itself, as `trainer/global_step`, a value: W&B's own counter refuses to go back,
which a resumed run may.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mic.config import diff
from mic.config.schema import Config
from mic.console import notice
from mic.errors import InputError
from mic.tracking.run_directory import FIGURES, RESULTS, about
from mic.tracking.wandb.server import dead_server, has_stopped, no_key, prepare

PATIENCE = (7.0, 8.0)  # seconds that training waits for W&B's answer, and for the last upload
BINS = 64
STEP = "trainer/global_step"
MAP = "cross_correlation_map.png"  # of the last validation, logged at each by its own name

Mode = Literal["online", "offline"]


class WandbMirror:
    """One W&B run in the place of a log. What W&B fails at is said once; then it is left alone."""

    def __init__(self, run: Any, folder: Path) -> None:
        self.run = run
        self.folder = folder
        self._steps = 0

    @property
    def has_pictures(self) -> bool:
        return self.run is not None

    def log(self, values: Mapping[str, float], steps: int) -> None:
        self._steps = max(self._steps, steps)
        self.safely(lambda: self.run.log({**values, STEP: steps}))

    def image(self, name: str, png: Path, steps: int) -> None:
        self.safely(lambda: self.run.log({name: image(png), STEP: steps}))

    def histogram(self, name: str, values: Sequence[float], steps: int) -> None:
        self.safely(lambda: self.run.log({name: histogram(values), STEP: steps}))

    def alert(self, heading: str, text: str) -> None:
        self.safely(lambda: self.run.alert(title=heading[:63], text=text))

    def cut(self, lines: Sequence[dict[str, Any]], steps: int) -> None:
        """W&B keeps what it was told; the steps after the checkpoint come to it once more."""

    def preempting(self) -> None:
        """Have W&B's agents start the run again, unless it was W&B that ended it early."""
        self.safely(lambda: ended_there(self.run) or self.run.mark_preempting())

    def finish(self) -> None:
        """End the W&B run with the run's figures and results; without results it has failed."""
        self.safely(lambda: finish(self.run, self.folder, self._steps))

    def safely(self, call: Callable[[], object]) -> None:
        """Call W&B; whatever it raises must not end a training run that needs it for nothing."""
        if self.run is None:
            return
        try:
            call()
        except Exception as error:
            self.run = None
            notice(f"W&B: {first_line(error)}: nothing more goes there; later: {cure(self.folder)}")


def start(config: Config, folder: Path, wanted: Mode) -> WandbMirror | None:
    """A run in W&B; offline where there is no key or nobody answers, none where W&B fails.

    Its id is that of run.json, so that a resumed run goes on in the same one.
    """
    mode: str = os.environ.get("WANDB_MODE", wanted)
    if mode == "disabled":
        return None
    if mode != "offline":
        reason = no_key() or dead_server()
        if reason:
            notice(f"W&B: {reason}: kept offline in {folder / 'wandb'}; later: {cure(folder)}")
            mode = "offline"
    try:
        return WandbMirror(open_run(config, folder, about(folder)["id"], mode), folder)
    except InputError:
        raise
    except Exception as error:  # of many kinds, and none may stop the run
        notice(f"W&B: {first_line(error)}: nothing goes there; later: {cure(folder)}")
        return None


def open_run(
    config: Config,
    folder: Path,
    run_id: str,
    mode: str,
    resume: str = "allow",
    patience: tuple[float, float] | None = None,
) -> Any:
    """wandb.init with the run's settings, and nothing of this machine sent along."""
    import wandb

    prepare()
    start_within, finish_within = patience or PATIENCE
    settings = wandb.Settings(
        init_timeout=start_within,
        finish_timeout=finish_within,
        finish_timeout_raises=True,
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_save_requirements=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
    logging = config.logging
    (folder / "wandb").mkdir(exist_ok=True)
    run = wandb.init(
        project=logging.project,
        entity=logging.entity,
        group=logging.group,
        job_type=logging.job_type,
        tags=logging.tags,
        name=diff.title(config),
        id=run_id,
        config=diff.plain(config),
        dir=folder,
        resume=resume if mode == "online" else None,  # type: ignore[arg-type]
        mode="online" if mode == "online" else "offline",
        reinit="create_new",
        settings=settings,
    )
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP)
    run.summary["segment"] = len(about(folder).get("segments", ()))
    return run


def ended_there(run: Any) -> bool:
    """Whether a sweep at W&B has ended this run of its own; its agent's SIGTERM is like any."""
    return "WANDB_SWEEP_ID" in os.environ and not run.offline and has_stopped(run)


def finish(run: Any, folder: Path, steps: int) -> None:
    """The last figures and results of the run's folder, then the end of the W&B run."""
    figures = final_figures(folder)
    if figures:
        run.log({**figures, STEP: steps})
    found = final_results(folder)
    run.summary.update(found)
    run.finish(exit_code=0 if found else 1)


def final_figures(folder: Path) -> dict[str, Any]:
    """figures/<name> for each picture that the end of a run leaves."""
    files = sorted((folder / FIGURES).glob("*.png"))
    return {f"figures/{file.stem}": image(file) for file in files if file.name != MAP}


def final_results(folder: Path) -> dict[str, Any]:
    """results.json as W&B's summary: results/<task>/<metric>/d<dim>; none before a run's end."""
    file = folder / RESULTS
    if not file.is_file():
        return {}
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    meta = results.pop("meta")
    methods = {"results": results}
    methods |= {f"baselines/{name}": found for name, found in meta.pop("baselines").items()}
    scores = {
        f"{method}/{task}/{metric}/d{dim}": value
        for method, tasks in methods.items()
        for task, metrics in tasks.items()
        for metric, values in metrics.items()
        for dim, value in values.items()
    }
    return {**scores, **{f"meta/{name}": value for name, value in meta.items()}}


def image(png: Path) -> Any:
    import wandb

    return wandb.Image(str(png))


def histogram(values: Sequence[float]) -> Any:
    """Counts in equal bins: W&B takes 512 at most, and no values of a great many."""
    import wandb

    return wandb.Histogram(np_histogram=np.histogram(np.asarray(values), bins=BINS))


def cure(folder: Path) -> str:
    return f"mic sync {folder}"


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
