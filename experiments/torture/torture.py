"""Kill a run of two ranks in many ways, resume it, and compare it with the one nobody killed.

`make torture`, or `python experiments/torture/torture.py [--only NUMBER ...]`: it can be stopped,
and goes on where it was. Writes record.md beside this file; ends with 1 if any run differs.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from life import End, Life
from model import make
from plan import Blow, plan

from mic.files import write_text

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = ROOT / "runs" / "torture"
CONFIG = HERE / "torture.yaml"
SEED = 0
TIMES = ("speed/", "memory/")
STOPPED = 143
HEADER = (
    "#",
    "what",
    "after (s)",
    "steps done",
    "exit codes",
    "steps lost",
    "ended in (s)",
    "orphans",
    "weights",
    "metrics",
    "batches",
)
Told = dict[str, Any]


def main() -> int:
    rows = plan(SEED)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="rows, from 1 on")
    wanted = parser.parse_args().only or range(1, len(rows) + 1)
    done = begin()
    if "life" not in done:
        say("a run that nobody kills, to compare with")
        with Life(arguments("whole"), WORK / "whole.log") as life:
            end = life.end()
        if end.code:
            say(f"it ended with {end.code}: {WORK / 'whole.log'}")
            return 1
        done["life"] = end.seconds
        keep(done)
    left = [number for number in wanted if str(number) not in done["rows"]]
    began = time.monotonic()
    for place, number in enumerate(left):
        passed = time.monotonic() - began
        minutes = passed / place * (len(left) - place) / 60 if place else None
        time_left = "" if minutes is None else f", {minutes:.0f} min left"
        blows = rows[number - 1]
        say(f"{number}/{len(rows)}{time_left}: {', then '.join(blow.told for blow in blows)}")
        while "life" in (found := row(number, blows, done["life"])):
            done["life"] = found["life"]
        done["rows"][str(number)] = found
        keep(done)
    return conclude(len(rows), done)


def begin() -> Told:
    """What is known from an earlier start with the same code, settings and versions."""
    files = sorted([*ROOT.glob("mic/**/*.py"), *ROOT.glob("configs/**/*.yaml"), *HERE.glob("*.*")])
    own = [file for file in files if file.suffix in (".py", ".yaml")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in own))
    digest.update(f"{version('torch')} {version('lightning')} {sys.version}".encode())
    file = WORK / "rows.json"
    if file.is_file():
        done: Told = json.loads(file.read_text())
        if done["of"] == digest.hexdigest():
            return done
        say("mic, the plan or a library has changed since: begun anew")
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    make(WORK / "model")
    return {"of": digest.hexdigest(), "rows": {}}


def keep(done: Told) -> None:
    write_text(WORK / "rows.json", json.dumps(done, indent=1))


def say(text: str) -> None:
    print(f"torture: {text}", flush=True)


def arguments(name: str) -> list[str]:
    folder = os.path.relpath(WORK)
    settings = (f"name={name}", f"runs={folder}", f"encoder.name={folder}/model")
    return ["train", os.path.relpath(CONFIG), *settings]


def row(number: int, blows: Sequence[Blow], usual: float) -> Told:
    """Begin a run, interrupt it by each of the blows, and let it go on to its end.

    Where it was done before a blow, on a machine that has become less busy, only its `life`.
    """
    name = f"row-{number}"
    run, log = WORK / name, WORK / f"{name}.log"
    shutil.rmtree(run, ignore_errors=True)
    log.unlink(missing_ok=True)
    ends, steps, lost, expected = [], [], [], []
    for blow in blows:
        with Life(arguments(name), log, blow.place) as life:
            end = life.end(life.strike(blow, blow.after * usual))
        if end.struck is None and not blow.place:
            return {"life": end.seconds}
        ends.append(end)
        steps.append(steps_done(run))
        lost.append(steps[-1] - saved(run))
        expected.append(as_it_should(blow, end, steps[-1], lost[-1]))
    with Life(arguments(name), log) as life:
        last = life.end()
    equal = compare(run, WORK / "whole")
    orphans = sum(end.orphans for end in (*ends, last))
    good = all(equal.values()) and all(expected) and not orphans and last.code == 0
    if good:
        shutil.rmtree(run)
    return {
        "what": ", then ".join(blow.told for blow in blows),
        "after": [end.struck for end in ends],
        "steps": steps,
        "codes": [*(end.code for end in ends), last.code],
        "lost": lost,
        "ended": [end.seconds for end in ends],
        "orphans": orphans,
        **equal,
        "good": good,
    }


def as_it_should(blow: Blow, end: End, step: int, lost: int) -> bool:
    """Whether a run says by its exit code what became of it; told to stop, it loses nothing."""
    if end.struck is None:  # it never came to the place
        return False
    if blow.by == "SIGKILL":
        return end.code == (-signal.SIGKILL if blow.whom == "launcher" else 1)
    return end.code == STOPPED and not lost if step else end.code != 0


def steps_done(run: Path) -> int:
    file = run / "batches.jsonl"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def saved(run: Path) -> int:
    """The step of the newest checkpoint."""
    file = run / "checkpoints" / "latest.json"
    return int(json.loads(file.read_text())["step"]) if file.is_file() else 0


def compare(run: Path, whole: Path) -> dict[str, bool]:
    """Whether weights, log (but for its times) and the rows of every batch are those of `whole`."""
    views = {
        "weights": lambda folder: (folder / "encoder" / "model.safetensors").read_bytes(),
        "metrics": lambda folder: [*map(untimed, (folder / "metrics.jsonl").open())],
        "batches": lambda folder: (folder / "batches.jsonl").read_bytes(),
    }
    finished = (run / "results.json").is_file()
    return {name: finished and view(run) == view(whole) for name, view in views.items()}


def untimed(line: str) -> Told:
    return {name: value for name, value in json.loads(line).items() if not name.startswith(TIMES)}


def conclude(count: int, done: Told) -> int:
    """Write record.md when every row is there; 1 if one of them is not as it should be."""
    found = [done["rows"].get(str(number)) for number in range(1, count + 1)]
    bad = [number for number, one in enumerate(found, 1) if one and not one["good"]]
    if None not in found:
        write_text(HERE / "record.md", record(found))
        say(f"{count - len(bad)} of {count} runs ended as the one that nobody killed; record.md")
    if bad:
        say(f"otherwise: {', '.join(map(str, bad))}; see {WORK}")
    return 1 if bad else 0


def record(found: Sequence[Told]) -> str:
    versions = f"torch {version('torch')}, Lightning {version('lightning')}"
    good = sum(one["good"] for one in found)
    lines = [" | ".join(cells(number, one)) for number, one in enumerate(found, 1)]
    return f"""# Runs killed and resumed

Written by `make torture`: {versions}, Python {platform.python_version()}, {os.cpu_count()} CPU
cores. {good} of {len(found)} runs ended as the one that nobody killed. `→` is between the processes
of a run; the last exit code is that of the one that went on to the end. README.md says what the
columns are.

| {" | ".join(HEADER)} |
|{"|".join(["---:", "---", *["---:"] * (len(HEADER) - 2)])}|
{chr(10).join(f"| {line} |" for line in lines)}
"""


def cells(number: int, one: Told) -> list[str]:
    def joined(values: Sequence[Any]) -> str:
        shown = (f"{value:.1f}" if isinstance(value, float) else str(value) for value in values)
        return " → ".join(shown)

    equal = ["equal" if one[name] else "**differ**" for name in ("weights", "metrics", "batches")]
    figures = [joined(one[name]) for name in ("after", "steps", "codes", "lost", "ended")]
    return [str(number), one["what"], *figures, str(one["orphans"]), *equal]


if __name__ == "__main__":
    sys.exit(main())
