"""Check whether Weights & Biases can be used: whether it has a key, and whether it answers."""

import json
import os
from base64 import b64encode
from threading import Thread
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

PROBE = 3.0  # seconds that the server has to answer
STOPPED = """query RunStoppedStatus($projectName: String, $entityName: String, $runId: String!) {
    project(name: $projectName, entityName: $entityName) { run(name: $runId) { stopped } }
}"""


def wandb_settings() -> Any:
    """Set up W&B without its own output; the settings of its files and the environment."""
    # its telemetry would wait for a dead server, half a minute at the end of the process
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb.setup(wandb.Settings(silent=True)).settings


def missing_key() -> str | None:
    """Why nothing can be sent; None when W&B finds a key. The user is not asked for one."""
    import wandb

    place = urlsplit(str(wandb_settings().base_url)).netloc
    try:
        if wandb.login(prompt=False, verify=False):
            return None
    except wandb.errors.AuthenticationError as error:
        return str(error)  # which names the variable or file
    return f"no key for {place}; `wandb login` or set WANDB_API_KEY"


def dead_server() -> str | None:
    """Why the server cannot be used; None when it gives any answer within PROBE seconds."""
    address = str(wandb_settings().base_url)
    reasons = [f"no answer in {PROBE:.0f} s"]

    def ask() -> None:
        try:
            urlopen(address, timeout=PROBE).close()
        except HTTPError:
            reasons.clear()  # an answer
        except (URLError, OSError, ValueError) as error:
            reasons[:] = [str(getattr(error, "reason", error))]
        else:
            reasons.clear()

    asking = Thread(target=ask, daemon=True)  # looking up a name may take longer than the timeout
    asking.start()
    asking.join(PROBE)
    return f"{address}: {reasons[0]}" if reasons else None


def stopped_by_wandb(run: Any) -> bool:
    """Whether W&B itself has ended a run, by a sweep's early_terminate or a click on its page.

    False where it does not answer within PROBE seconds.
    """
    settings = wandb_settings()
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
