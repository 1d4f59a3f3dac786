"""How the speed of exact search depends on the size of the corpus: random vectors, 384 numbers.

`python experiments/advise/speed.py` prints a table, measured as `mic advise` measures.
"""

import tempfile
from pathlib import Path

import numpy as np

from mic.encoder.embedding_file import Embeddings
from mic.evaluation.advise.quality import FULL, OperatingPoint
from mic.evaluation.advise.speed import measure_speed
from mic.metrics.quantization import PRECISIONS
from mic.report.tables import numeric_markdown

WIDTH, SIZES, DIMS = 384, (5_000, 20_000, 100_000), (64, 384)


def main() -> None:
    generator = np.random.default_rng(0)
    points = [OperatingPoint(dim, precision) for dim in DIMS for precision in PRECISIONS]
    columns = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        generator.standard_normal((max(SIZES), WIDTH), np.float32).tofile(file)
        for size in SIZES:
            rows = Embeddings(file, WIDTH, np.arange(size))
            columns.append(measure_speed(rows, rows, points, OperatingPoint(WIDTH, FULL)).by_point)
    rows_of = [
        [f"{point.dim} {point.precision}", *(f"{found[point].times:.1f}" for found in columns)]
        for point in points
    ]
    print(numeric_markdown(["numbers", *(f"{size:,}" for size in SIZES)], rows_of))


if __name__ == "__main__":
    main()
