"""Whether two runs are one: `python experiments/nodes/compare.py RUN RUN`.

Every value of metrics.jsonl but speed and memory, and the weights, have to be the same to the bit.
"""

import json
import sys
from pathlib import Path
from typing import Any


def logged(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("speed/", "memory/")
    return [{key: one for key, one in line.items() if not key.startswith(timed)} for line in lines]


def main(one: Path, other: Path) -> str:
    logs = [logged(run) for run in (one, other)]
    weights = [(run / "encoder/model.safetensors").read_bytes() for run in (one, other)]
    if logs[0] != logs[1]:
        return "the logs differ"
    if weights[0] != weights[1]:
        return "the weights differ"
    values = sum(len(line) for line in logs[0])
    print(f"{values:,} logged values and {len(weights[0]):,} bytes of weights are the same")
    return ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])) or 0)
