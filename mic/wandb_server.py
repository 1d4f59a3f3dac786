"""Whether Weights & Biases can be reached: a key for it, and an answer from it."""

import os
from threading import Thread
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

PROBE = 3.0  # seconds that a server may take to answer at all


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
