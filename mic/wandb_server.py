"""Whether Weights & Biases can be reached: its address, a key for it, an answer from it."""

import netrc
import os
from pathlib import Path
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
    """Why nothing can be sent; None when there is a key, which is not looked at.

    Where W&B itself looks, but never by asking: WANDB_API_KEY, an identity token, netrc.
    """
    settings, named = prepare(), ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
    if any(os.environ.get(name) for name in named) or settings.api_key:
        return None
    place = urlsplit(str(settings.base_url)).netloc
    chosen = os.environ.get("NETRC")
    files = [chosen] if chosen else ["~/.netrc", "~/_netrc"]
    for file in files:
        try:
            if netrc.netrc(Path(file).expanduser()).authenticators(place):
                return None
        except (OSError, netrc.NetrcParseError):
            continue
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

    asking = Thread(target=ask, daemon=True)  # looking up the name may take longer than its timeout
    asking.start()
    asking.join(PROBE)
    return f"{address}: {found[0]}" if found else None
