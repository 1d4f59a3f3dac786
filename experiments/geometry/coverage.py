"""How often the interval leaves 0 out where nothing is to be found, by the number of methods.

`python experiments/geometry/coverage.py`: methods lie anywhere, their seeds near them; predictor
and quality have nothing to do with each other. Also with runs drawn singly, as if seeds were
independent. Writes coverage.md beside itself.
"""

from pathlib import Path

import numpy as np
from clusters import correlation

from mic.files import write_text
from mic.report.tables import numeric_markdown

METHODS, SEEDS, WITHIN = (4, 6, 8, 12, 16), 3, 0.2
WORLDS, RESAMPLES = 1000, 1000


def main() -> None:
    rows = []
    for methods in METHODS:
        generator = np.random.default_rng(methods)
        wrong = np.mean([outside(generator, methods) for _ in range(WORLDS)], axis=0)
        rows.append([str(methods), *(f"{100 * share:.1f}" for share in wrong)])
    report = (
        "Made by `python experiments/geometry/coverage.py`.\n\nShare of 95 % intervals of rho that "
        f"leave 0 out, in per cent, where nothing is to be found (5 would be right): {WORLDS:,} "
        f"times, {SEEDS} seeds a method, their standard deviation {WITHIN} of the methods', "
        f"{RESAMPLES:,} resamples.\n\n"
    )
    report += numeric_markdown(["methods", "methods drawn", "runs drawn singly"], rows) + "\n"
    write_text(Path(__file__).with_name("coverage.md"), report)
    print(report)


def outside(generator: np.random.Generator, methods: int) -> list[bool]:
    """Whether the interval leaves 0 out, of methods drawn and of runs drawn singly."""
    middle = generator.standard_normal((2, methods, 1))
    runs = middle + WITHIN * generator.standard_normal((2, methods, SEEDS))
    x, y = runs.reshape(2, -1)
    of = (np.repeat(np.arange(methods), SEEDS).tolist(), range(len(x)))
    found = [correlation(x, y, one, RESAMPLES) for one in of]
    return [bool(one is not None and one.rho.sign) for one in found]


if __name__ == "__main__":
    main()
