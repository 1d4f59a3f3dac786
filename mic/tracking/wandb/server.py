"""Whether Weights & Biases can be reached: a key for it, and an answer from it."""

import json
import os
from base64 import b64encode
from threading import Thread
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

PROBE = 3.0  # seconds that a server may take to answer at all
STOPPED = """query RunStoppedStatus($projectName: String, $entityName: String, $runId: String!) {
    project(name: $projectName, entityName: $entityName) { run(name: $runId) { stopped } }
}"""


def prepare() -> Any:
    """Start W&B in silence; what its own settings files and the environment say."""
    # its telemetry would wait for a dead server, half a minute at the end of the process
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb.setup(wandb.Settings(silent=True)).settings


def no_key() -> str | None:
    """Why nothing can be sent; None when W&B finds a key, which nobody is asked for."""
    import wandb

    place = urlsplit(str(prepare().base_url)).netloc
    try:
        if wandb.login(prompt=False, verify=False):
            return None
    except wandb.errors.AuthenticationError as error:
        return str(error)  # which names the variable or file
    return f"no key for {place}; `wandb login` or set WANDB_API_KEY"


def dead_server() -> str | None:
    """Why the server cannot be used; None when it answers anything within some seconds."""
    address = str(prepare().base_url)
    found = [f"no answer in {PROBE:.0f} s"]

    def ask() -> None:
        try:
            urlopen(address, timeout=PROBE).close()
        except HTTPError:
            found.clear()  # an answer
        except (URLError, OSError, ValueError) as error:
            found[:] = [str(getattr(error, "reason", error))]
        else:
            found.clear()

    asking = Thread(target=ask, daemon=True)  # to look a name up may take longer than its timeout
    asking.start()
    asking.join(PROBE)
    return f"{address}: {found[0]}" if found else None


def has_stopped(run: Any) -> bool:
    """Whether W&B itself has ended a run, by a sweep's early_terminate or somebody's click there.

    False where it does not say so within some seconds.
    """
    settings = prepare()
    names = {"projectName": run.project, "entityName": run.entity, "runId": run.id}
    key = b64encode(f"api:{settings.api_key}".encode()).decode()
    asking = Request(
        f"{str(settings.base_url).rstrip('/')}/graphql",
        json.dumps({"query": STOPPED, "variables": names}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {key}"},
    )
    try:
        with urlopen(asking, timeout=PROBE) as answer:
            return bool(json.load(answer)["data"]["project"]["run"]["stopped"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
