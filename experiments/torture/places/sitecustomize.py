"""Python imports this by itself where PYTHONPATH has its folder: a rank kills at a chosen place.

TORTURE_PLACE is "mic.train.module:MICModule.training_step 90 SIGKILL 1": a function, how many times
a rank comes to it before, the signal, and the rank that kills itself, or `launcher`, which rank 0
then sends it to. When it came is written to the file TORTURE_STRUCK.
"""

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any


class Trap:
    """Changes a function of a module when that is imported."""

    def __init__(self, function: str, nth: str, by: str, whom: str) -> None:
        self.module, _, self.function = function.partition(":")
        self.nth = int(nth)
        self.by = signal.Signals[by]
        self.whom = whom

    def find_spec(self, name: str, *_: Any) -> Any:
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def run_and_arm(module: ModuleType) -> None:
            run(module)
            self.arm(module)

        spec.loader.exec_module = run_and_arm
        return spec

    def arm(self, module: ModuleType) -> None:
        *path, name = self.function.split(".")
        owner: Any = getattr(module, path[0]) if path else module
        function, calls = getattr(owner, name), 0

        def deadly(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == self.nth:
                Path(os.environ["TORTURE_STRUCK"]).write_text(str(time.time()))
                os.kill(os.getppid() if self.whom == "launcher" else os.getpid(), self.by)
            return function(*args, **kwargs)

        setattr(owner, name, deadly)


if place := os.environ.get("TORTURE_PLACE"):
    trap = Trap(*place.split())
    if os.environ.get("RANK") == trap.whom.replace("launcher", "0"):
        sys.meta_path.insert(0, trap)
