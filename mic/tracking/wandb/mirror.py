"""Log a run to Weights & Biases as well; its failures never end the run.

mic counts steps by itself, as `trainer/global_step`, a value: W&B's own counter refuses to go back,
which a resumed run may.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mic.config.diff import run_title
from mic.config.schema import Config
from mic.console import notice
from mic.errors import InputError
from mic.tracking.run_directory import FIGURES, RESULTS, run_info
from mic.tracking.wandb.server import dead_server, missing_key, stopped_by_wandb, wandb_settings

PATIENCE = (7.0, 8.0)  # seconds that training waits for W&B's answer, and for the last upload
BINS = 64
STEP = "trainer/global_step"
MAP_FILE = "cross_correlation_map.png"  # of the last validation, logged at each by its own name

Mode = Literal["online", "offline"]


class WandbMirror:
    """Logs to one W&B run. After the first failure, which is printed, nothing more is sent."""

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
        self.safely(lambda: self.run.log({name: wandb_image(png), STEP: steps}))

    def histogram(self, name: str, values: Sequence[float], steps: int) -> None:
        self.safely(lambda: self.run.log({name: wandb_histogram(values), STEP: steps}))

    def alert(self, heading: str, text: str) -> None:
        self.safely(lambda: self.run.alert(title=heading[:63], text=text))

    def cut(self, lines: Sequence[dict[str, Any]], steps: int) -> None:
        """W&B keeps what it has; the steps after the checkpoint are sent again."""

    def preempting(self) -> None:
        """Have W&B's agents start the run again, unless W&B itself has ended it."""
        self.safely(lambda: ended_by_wandb(self.run) or self.run.mark_preempting())

    def finish(self) -> None:
        """End the W&B run with the run's figures and results; without results it has failed."""
        self.safely(lambda: finish_wandb_run(self.run, self.folder, self._steps))

    def safely(self, call: Callable[[], object]) -> None:
        """Call W&B; no error of W&B may end a training run."""
        if self.run is None:
            return
        try:
            call()
        except Exception as error:
            self.run = None
            later = sync_command(self.folder)
            notice(f"W&B: {error_line(error)}: nothing more goes there; later: {later}")


def start_wandb_run(config: Config, folder: Path, wanted: Mode) -> WandbMirror | None:
    """Start a run in W&B: offline without a key or an answer of the server, None where W&B fails.

    Its id is that of run.json, so that a resumed run continues the same W&B run.
    """
    mode: str = os.environ.get("WANDB_MODE", wanted)
    if mode == "disabled":
        return None
    if mode != "offline":
        reason = missing_key() or dead_server()
        if reason:
            notice(
                f"W&B: {reason}: kept offline in {folder / 'wandb'}; later: {sync_command(folder)}"
            )
            mode = "offline"
    try:
        return WandbMirror(init_wandb_run(config, folder, run_info(folder)["id"], mode), folder)
    except InputError:
        raise
    except Exception as error:  # W&B raises errors of many kinds, and none may stop the run
        notice(f"W&B: {error_line(error)}: nothing goes there; later: {sync_command(folder)}")
        return None


def init_wandb_run(
    config: Config,
    folder: Path,
    run_id: str,
    mode: str,
    resume: str = "allow",
    patience: tuple[float, float] | None = None,
) -> Any:
    """Call wandb.init with the run's settings; nothing about this machine is sent."""
    import wandb

    wandb_settings()
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
        name=run_title(config),
        id=run_id,
        config=asdict(config),
        dir=folder,
        resume=resume if mode == "online" else None,  # type: ignore[arg-type]
        mode="online" if mode == "online" else "offline",
        reinit="create_new",
        settings=settings,
    )
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP)
    run.summary["segment"] = len(run_info(folder).get("segments", ()))
    return run


def ended_by_wandb(run: Any) -> bool:
    """Whether a W&B sweep has ended this run: its agent's SIGTERM looks like any other."""
    return "WANDB_SWEEP_ID" in os.environ and not run.offline and stopped_by_wandb(run)


def finish_wandb_run(run: Any, folder: Path, steps: int) -> None:
    """Log the final figures and results of the run's folder, then end the W&B run."""
    figures = final_figures(folder)
    if figures:
        run.log({**figures, STEP: steps})
    results = final_results(folder)
    run.summary.update(results)
    run.finish(exit_code=0 if results else 1)


def final_figures(folder: Path) -> dict[str, Any]:
    """The final pictures of a run, by figures/<name>."""
    files = sorted((folder / FIGURES).glob("*.png"))
    return {f"figures/{file.stem}": wandb_image(file) for file in files if file.name != MAP_FILE}


def final_results(folder: Path) -> dict[str, Any]:
    """results.json as W&B's summary: results/<task>/<metric>/d<dim>; empty before a run's end."""
    file = folder / RESULTS
    if not file.is_file():
        return {}
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    meta = results.pop("meta")
    methods = {"results": results}
    methods |= {f"baselines/{name}": scores for name, scores in meta.pop("baselines").items()}
    scores = {
        f"{method}/{task}/{metric}/d{dim}": value
        for method, tasks in methods.items()
        for task, metrics in tasks.items()
        for metric, values in metrics.items()
        for dim, value in values.items()
    }
    return {**scores, **{f"meta/{name}": value for name, value in meta.items()}}


def wandb_image(png: Path) -> Any:
    import wandb

    return wandb.Image(str(png))


def wandb_histogram(values: Sequence[float]) -> Any:
    """Counts in equal bins: W&B takes at most 512 bins, and not many values themselves."""
    import wandb

    return wandb.Histogram(np_histogram=np.histogram(np.asarray(values), bins=BINS))


def sync_command(folder: Path) -> str:
    return f"mic sync {folder}"


def error_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
