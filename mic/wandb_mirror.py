"""A run's mirror in Weights & Biases, which may be slow, dead or absent without harm."""

import netrc
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np

from mic import config_diff
from mic.progress import notice
from mic.rundir import about
from mic.settings import Config

PROBE, INIT, FINISH = 3.0, 20.0, 30.0  # seconds waited for a server, a run, the last upload
BINS = 64
STEP = "trainer/global_step"

Mode = Literal["online", "offline"]


class WandbMirror:
    """One W&B run. What W&B fails at is said once, and from then on it is left alone."""

    has_pictures = True

    def __init__(self, run: Any, folder: Path) -> None:
        self.run = run
        self.folder = folder
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP)

    def log(self, values: Mapping[str, float], steps: int) -> None:
        # the step as a value: W&B's own counter refuses to go back, which a resumed run may
        self.safely(lambda: self.run.log({**values, STEP: steps}))

    def image(self, name: str, png: Path, steps: int) -> None:
        import wandb

        self.safely(lambda: self.run.log({name: wandb.Image(str(png)), STEP: steps}))

    def histogram(self, name: str, values: Sequence[float], steps: int) -> None:
        import wandb

        finite = np.asarray(values)[np.isfinite(values)]
        if len(finite):
            found = wandb.Histogram(np_histogram=np.histogram(finite, bins=BINS))
            self.safely(lambda: self.run.log({name: found, STEP: steps}))

    def summary(self, values: Mapping[str, float]) -> None:
        self.safely(lambda: self.run.summary.update(dict(values)))

    def alert(self, heading: str, text: str) -> None:
        self.safely(lambda: self.run.alert(title=heading[:63], text=text))

    def finish(self) -> None:
        self.safely(lambda: self.run.finish())

    def safely(self, call: Callable[[], object]) -> None:
        """Call W&B; whatever it raises must not end a training run that needs it for nothing."""
        if self.run is None:
            return
        try:
            call()
        except Exception as error:
            self.run = None
            notice(
                f"W&B: {first_line(error)}; nothing more goes there; later: mic sync {self.folder}"
            )


def start(config: Config, folder: Path, mode: Mode, quick: bool = True) -> WandbMirror | None:
    """A run in W&B; offline where there is no key or, if `quick`, nobody answers.

    Its id is that of run.json, so that a resumed run goes on in the same one.
    """
    if mode == "online":
        reason = no_key() or (dead_server() if quick else None)
        if reason:
            notice(f"W&B: {reason}: kept offline in {folder / 'wandb'}; later: mic sync {folder}")
            mode = "offline"
    for attempt in (mode, "offline"):
        try:
            return WandbMirror(init(config, folder, attempt), folder)
        except Exception as error:  # of many kinds, and none may stop the run
            notice(f"W&B: {first_line(error)}; later: mic sync {folder}")
    return None


def init(config: Config, folder: Path, mode: str, run_id: str | None = None) -> Any:
    import wandb

    wanted = config.logging
    settings = wandb.Settings(
        init_timeout=INIT,
        finish_timeout=FINISH,
        finish_timeout_raises=True,
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_save_requirements=False,
        x_disable_meta=True,
        x_disable_stats=True,
    )
    (folder / "wandb").mkdir(exist_ok=True)
    return wandb.init(
        project=wanted.project,
        entity=wanted.entity,
        group=wanted.group,
        job_type=wanted.job_type,
        tags=wanted.tags,
        name=config_diff.title(config),
        id=run_id or about(folder)["id"],
        config=config_diff.plain(config),
        dir=folder,
        resume="allow" if mode == "online" else None,
        mode="online" if mode == "online" else "offline",
        reinit="create_new",
        settings=settings,
    )


def base_url() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")


def no_key() -> str | None:
    """Why W&B cannot be used; None when there is a key, which is not looked at."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return None
    host = urlsplit(base_url()).hostname or ""
    named = os.environ.get("NETRC")
    for file in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc.netrc(file).authenticators(host):
                return None
        except (OSError, netrc.NetrcParseError):
            continue
    return f"no key for {host} (`wandb login` or WANDB_API_KEY)"


def dead_server() -> str | None:
    """Why the server cannot be used; None when it answers at all within some seconds."""
    try:
        with urlopen(base_url(), timeout=PROBE):
            return None
    except HTTPError:
        return None  # an answer
    except (URLError, OSError, ValueError) as error:
        return f"{base_url()} does not answer ({getattr(error, 'reason', error)})"


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
