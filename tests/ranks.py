"""One rank of a process group of two or three: a real DDP step on its own, unequal part of a batch.

Run by tests/test_distributed.py as `python ranks.py RANK WORLD FOLDER MODEL DTYPE`; writes the
loss of every objective and the gradient of every parameter.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from conftest import answer, sentence
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mic.encoder import Encoder
from mic.objective import Objective
from mic.settings import ObjectiveConfig

ROWS = {1: [9], 2: [6, 3], 3: [4, 1, 4]}  # of each rank, by the number of ranks
BASE = ObjectiveConfig(dims=[4, 8, 16], gamma=0.5, align_layers=[1, 2], threshold=0.02)
OBJECTIVES = {
    "mic": BASE,
    "plain sum": replace(BASE, normalize_dim_weights=False, regularize_views="first"),
    "embeddings and output": replace(BASE, align_layers=[0, 3, "output"], isotropy="eigen"),
    "per coordinate": replace(BASE, variance_floor="per_dim", threshold=0.0),
    "mrl": replace(BASE, gamma=0.0),
    "simcse": replace(BASE, dims=[], gamma=0.0),
}


class Step(nn.Module):
    """Encode the columns of a batch and weigh them: what DDP wraps in training."""

    def __init__(self, encoder: Encoder, config: ObjectiveConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.objective = Objective(config)

    def forward(self, columns: list[dict[str, Tensor]]) -> Tensor:
        views = [
            self.encoder(tokens, self.objective.layers(view)) for view, tokens in enumerate(columns)
        ]
        return self.objective(views, step=0).total


def columns(encoder: Encoder, numbers: range) -> list[dict[str, Tensor]]:
    """Queries, positives and hard negatives of some rows, of texts of different lengths."""
    texts = (
        [sentence(n * 37) + " and a cat" * (n % 3) for n in numbers],
        [answer(n * 37) for n in numbers],
        [answer(n * 53 + 7) + " and that" * (n % 2) for n in numbers],
    )
    return [dict(encoder.tokenize(column)) for column in texts]


def steps(rank: int, world: int, model: str, dtype: torch.dtype) -> dict[str, dict[str, Tensor]]:
    """Loss, gradients and the number of collectives of a step of every objective."""
    start = sum(ROWS[world][:rank])
    found = {}
    for name, config in OBJECTIVES.items():
        encoder = Encoder.from_pretrained(model, max_length=32, projection=12).to(dtype)
        step: nn.Module = Step(encoder, replace(config, dims=[d for d in config.dims if d < 12]))
        batch = columns(encoder, range(start, start + ROWS[world][rank]))
        if world > 1:
            step = DistributedDataParallel(step)
        calls = count_collectives()
        loss = step(batch)
        forward = len(calls)
        loss.backward()
        found[name] = {
            "loss": loss.detach(),
            "collectives": torch.tensor([forward, len(calls) - forward]),
            **{key: p.grad for key, p in encoder.named_parameters() if p.grad is not None},
        }
    return found


def count_collectives() -> list[str]:
    """A list that grows by a name at every collective that mic calls from now on."""
    calls: list[str] = []

    def counted(name: str, function: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            calls.append(name)
            return function(*args, **kwargs)  # type: ignore[operator]

        return call

    for name in ("all_reduce", "all_gather_into_tensor"):
        function = getattr(distributed.distributed_c10d, name)
        setattr(distributed, name, counted(name, function))
    return calls


if __name__ == "__main__":
    rank, world, folder, model, dtype = sys.argv[1:]
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", int(world))
    distributed.init_process_group("gloo", store=store, rank=int(rank), world_size=int(world))
    found = steps(int(rank), int(world), model, getattr(torch, dtype))
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()
