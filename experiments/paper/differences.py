"""MIC minus every other method, by seed: what remains of a difference when seeds are drawn anew.

`python experiments/paper/differences.py runs/paper-test` reads what `mic evaluate` wrote there and
writes differences.md beside this file, or in the folder of the variant that runs/paper-VARIANT-test
names. Both methods of a pair see the same batches with one seed.
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t

HERE = Path(__file__).parent
MIC, HEAVY = "mic_paper", "gamma_1"
OTHERS = (
    *("simcse", "mrl", "ese", "ese_light"),
    *("without_scr", "without_sir", "without_floor", "tau_0", "last_layer", HEAVY),
)
SEEDS = (0, 1, 2)
Runs = dict[str, list[dict[str, Any]]]  # a method's results, by seed


def evaluated(folder: Path) -> Runs:
    """The methods of which the folder has every seed, MIC first."""
    prefix = folder.name.removesuffix("-test")
    found: Runs = {}
    for method in (MIC, *OTHERS):
        places = [folder / f"{prefix}-{method}-{seed}" / "results.json" for seed in SEEDS]
        if all(place.is_file() for place in places):
            found[method] = [json.loads(place.read_text(encoding="utf-8")) for place in places]
    return found


def home(folder: Path) -> Path:
    """Where the tables and pictures of what was evaluated there belong."""
    variant = folder.name.removesuffix("-test").removeprefix("paper").removeprefix("-")
    return HERE / variant


def main(folder: Path) -> None:
    runs = evaluated(folder)
    headlines: dict[str, str] = runs[MIC][0]["meta"]["headlines"]
    rows = {"all tasks": list(headlines), **{task: [task] for task in headlines}}
    lines = [
        f"Made by `python experiments/paper/differences.py {folder}`.",
        "",
        f"One method minus another in points, mean of {len(SEEDS)} paired seeds ± half of the "
        "95 % t-interval; bold where the interval leaves out 0, as one in twenty would by chance.",
    ]
    for title, tasks in rows.items():
        for reference in (MIC, HEAVY):
            lines += ["", f"**{title}: {reference} minus**", "", *table(runs, reference, tasks)]
    cells = [part for line in lines[3:] for part in line.split(" | ") if " ± " in part]
    lines += ["", f"{sum('**' in one for one in cells)} of {len(cells)} are bold."]
    (home(folder) / "differences.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(runs: Runs, reference: str, tasks: list[str]) -> list[str]:
    """The reference minus every other method, by width."""
    dims = list(scores(runs[reference][0], tasks))
    lines = ["| | " + " | ".join(dims) + " |", "|---" + "|---:" * len(dims) + "|"]
    for other, others in runs.items():
        if other != reference:
            pairs = [
                (scores(own, tasks), scores(foreign, tasks))
                for own, foreign in zip(runs[reference], others, strict=True)
            ]
            cells = [cell([own[dim] - foreign[dim] for own, foreign in pairs]) for dim in dims]
            lines.append(f"| {other} | " + " | ".join(cells) + " |")
    return lines


def cell(found: list[float]) -> str:
    half = t.ppf(0.975, len(found) - 1) * stdev(found) / len(found) ** 0.5
    shown = f"{mean(found):+.1f} ± {half:.1f}"
    return f"**{shown}**" if abs(mean(found)) > half else shown


def scores(run: dict[str, Any], tasks: list[str]) -> dict[str, float]:
    """The mean of the tasks' headlines at every width."""
    columns = [run[task][run["meta"]["headlines"][task]] for task in tasks]
    return {dim: mean(float(column[dim]) for column in columns) for dim in columns[0]}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
