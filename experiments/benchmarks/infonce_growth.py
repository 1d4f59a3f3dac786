"""How nested InfoNCE grows with widths and batch, ours beside sentence-transformers'."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from sentence_transformers.sentence_transformer.losses import (
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from timing import agree, milliseconds, publish, ratio, seconds, table
from torch import Tensor, nn

from mic.losses import nested_infonce

WIDTH, TEMPERATURE = 768, 0.05
SEVEN = (16, 32, 64, 128, 256, 512, 768)
WIDTHS = (1, 2, 4, 8, 16)
BATCHES = (64, 128, 256, 512, 1024, 2048)
ROUNDS = 9


class Given(nn.Module):
    """A model whose embeddings are given, so that only the loss is measured."""

    def get_embedding_dimension(self) -> int:
        return WIDTH

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["given"]}


def grid(count: int) -> tuple[int, ...]:
    """`count` even widths that end at the full one."""
    return tuple(WIDTH * k // count for k in range(1, count + 1))


def given(batch: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, WIDTH).requires_grad_() for _ in range(2)]


def loss(who: str, columns: list[Tensor], dims: tuple[int, ...]) -> Tensor:
    if who == "ours":
        return torch.stack(
            list(nested_infonce(*columns, dims, temperature=TEMPERATURE).values())
        ).sum()
    model = Given()
    ranking = MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    found: Tensor = MatryoshkaLoss(model, ranking, dims)(
        [{"given": column} for column in columns], torch.empty(0)
    )
    return found


def step(who: str, columns: list[Tensor], dims: tuple[int, ...]) -> None:
    torch.autograd.grad(loss(who, columns, dims), columns)


def peak(who: str, batch: int, dims: tuple[int, ...]) -> float:
    """MiB that a step adds to the largest resident size of a process of its own."""
    asked = json.dumps([who, batch, list(dims)])
    run = subprocess.run(
        [sys.executable, __file__, asked], check=True, capture_output=True, text=True
    )
    return float(run.stdout)


def added(who: str, batch: int, dims: tuple[int, ...]) -> float:
    torch.set_num_threads(1)
    step(who, given(16), dims)  # code and buffers that any step needs
    columns = given(batch)
    before = largest()
    step(who, columns, dims)
    return largest() - before


def largest() -> float:
    """The largest resident size so far, in MiB; ru_maxrss would begin with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def row(batch: int, dims: tuple[int, ...]) -> list[str]:
    columns = given(batch)
    ours, theirs = "ours", "theirs"
    agree(loss(ours, columns, dims).item(), loss(theirs, columns, dims).item())
    names = (ours, theirs)
    times = seconds({who: lambda who=who: step(who, columns, dims) for who in names}, ROUNDS)
    memory = [f"{peak(who, batch, dims):.0f}" for who in names]
    spent = [milliseconds(times[who]) for who in names]
    return [str(len(dims)), str(batch), *spent, ratio(times[theirs], times[ours]), *memory]


def main() -> None:
    torch.set_num_threads(1)
    header = ["widths", "B", "ours, ms", "theirs, ms", "theirs / ours", "ours, MiB", "theirs, MiB"]
    publish(
        "infonce_growth",
        "Nested InfoNCE on given embeddings, forward and backward",
        [
            f"fp32, D = {WIDTH}, ours `mic.losses.nested_infonce`, theirs `MatryoshkaLoss` over "
            "`MultipleNegativesRankingLoss` with a model that returns the given embeddings; both "
            "give one value (1e-4). MiB: what one step adds to the largest resident size "
            "(VmHWM) of a fresh process that has taken a step at B = 16.",
            f"Widths {list(SEVEN)}:",
            table(header, [row(batch, SEVEN) for batch in BATCHES]),
            "K even widths that end at the full one:",
            table(header, [row(256, grid(count)) for count in WIDTHS]),
        ],
        ROUNDS,
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        who, batch, dims = json.loads(sys.argv[1])
        print(added(who, batch, tuple(dims)))
    else:
        main()
