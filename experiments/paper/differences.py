"""MIC minus every other method, by seed: what remains of a difference when seeds are drawn anew.

`python experiments/paper/differences.py runs/paper-test` reads what `mic evaluate` wrote there and
writes differences.md beside this file. Both methods of a pair see the same batches with one seed.
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t

HERE = Path(__file__).parent
MIC = "mic_paper"
OTHERS = (
    *("simcse", "mrl", "ese", "ese_light"),
    *("without_scr", "without_sir", "without_floor", "tau_0", "last_layer", "gamma_1"),
)
SEEDS = (0, 1, 2)


def evaluated(folder: Path) -> list[str]:
    """The methods of which the folder has every seed, MIC first."""
    return [
        method
        for method in (MIC, *OTHERS)
        if all((folder / f"paper-{method}-{seed}").is_dir() for seed in SEEDS)
    ]


def main(folder: Path) -> None:
    methods = evaluated(folder)
    runs = {
        (method, seed): read(folder / f"paper-{method}-{seed}")
        for method in methods
        for seed in SEEDS
    }
    headlines: dict[str, str] = runs[MIC, 0]["meta"]["headlines"]
    rows = {"all tasks": list(headlines), **{task: [task] for task in headlines}}
    dims = list(runs[MIC, 0][next(iter(headlines))][next(iter(headlines.values()))])
    lines = [
        f"Made by `python experiments/paper/differences.py {folder}`.",
        "",
        f"{MIC} minus the other method in points, mean of {len(SEEDS)} paired seeds ± half of the "
        "95 % t-interval; bold where the interval leaves out 0, as one in twenty would by chance.",
    ]
    bold = count = 0
    for title, tasks in rows.items():
        lines += ["", f"**{title}**", "", "| | " + " | ".join(dims) + " |"]
        lines.append("|---" + "|---:" * len(dims) + "|")
        for other in methods[1:]:
            cells = []
            for dim in dims:
                found = [
                    score(runs[MIC, seed], tasks, headlines, dim)
                    - score(runs[other, seed], tasks, headlines, dim)
                    for seed in SEEDS
                ]
                half = t.ppf(0.975, len(found) - 1) * stdev(found) / len(found) ** 0.5
                clear = abs(mean(found)) > half
                bold, count = bold + clear, count + 1
                cell = f"{mean(found):+.1f} ± {half:.1f}"
                cells.append(f"**{cell}**" if clear else cell)
            lines.append(f"| {other} | " + " | ".join(cells) + " |")
    lines += ["", f"{bold} of {count} are bold."]
    (HERE / "differences.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def score(run: dict[str, Any], tasks: list[str], headlines: dict[str, str], dim: str) -> float:
    """The mean of the tasks' headlines at a width."""
    return mean(float(run[task][headlines[task]][dim]) for task in tasks)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
