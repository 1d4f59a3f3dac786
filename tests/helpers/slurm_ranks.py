"""What a job runs in mic's place, as `slurm_ranks.py MODE ... train CONFIG ...`, on two ranks.

`ends 0,1` ends rank 1 with 1, sooner than rank 0; `waits` until a signal asks it to stop, and takes
a moment to save; `waits_to_save` until the test's file `save` as well; `hangs`, on rank 0, after
rank 1 has failed.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

RANK = int(os.environ.get("SLURM_PROCID", 0))  # not there for pytest, which looks for doctests
HERE = Path(os.environ.get("FAKE_SLURM", ""))


def ends(codes: str) -> int:
    seen = {"arguments": sys.argv[3:], "threads": os.environ["OMP_NUM_THREADS"]}
    (HERE / f"said.{RANK}").write_text(json.dumps(seen))
    time.sleep(0 if RANK else 0.2)
    return int(codes.split(",")[RANK])


def waits(for_the_test: bool = False) -> int:
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: asked.append(number))
    (HERE / f"ready.{RANK}").touch()
    while not asked:
        time.sleep(0.01)
    sys.stdout.write(f"{signal.Signals(asked[0]).name}\n")
    (HERE / f"asked.{RANK}").touch()
    if for_the_test:
        while not (HERE / "save").exists():
            time.sleep(0.01)
    else:
        time.sleep(0.3)  # to save
    (HERE / f"saved.{RANK}").touch()
    return 143


def hangs() -> int:
    if RANK == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    return 1


if __name__ == "__main__":
    modes = {"ends": lambda: ends(sys.argv[2]), "waits": waits, "hangs": hangs}
    modes["waits_to_save"] = lambda: waits(for_the_test=True)
    sys.exit(modes[sys.argv[1]]())
