"""One rank of a process group of two or three: a real DDP step on its own, unequal part of a batch.

What each rank of tests/objective/test_ranks.py does: it writes the loss of every objective and the
gradient of every parameter.
"""

from dataclasses import replace
from pathlib import Path

import torch
from sentences import answer, sentence
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mic.config.loading import load
from mic.config.schema import ObjectiveConfig, TermConfig
from mic.data.batch import Batch, Collate
from mic.data.indexed import Row
from mic.encoder.encoder import Encoder
from mic.objective.gradcache import chunked_step
from mic.objective.objective import Loss, Objective
from mic.objective.statistics import BatchStatistics

CONFIGS = Path(__file__).parents[2] / "configs" / "objective"
SMALL = (  # the shipped objectives at the size of the tiny encoder
    "objective.dims=[4,8]",
    "objective.align_layers=[1,2]",
    "objective.express_layers=[1,2]",
    "objective.chain_layers=[1,2,3]",
    "objective.threshold=0.02",
)
ROWS = {1: [9], 2: [6, 3], 3: [4, 1, 4]}  # of each rank, by the number of ranks
BASE = ObjectiveConfig(dims=[4, 8, 16], gamma=0.5, align_layers=[1, 2], threshold=0.02)
OBJECTIVES = {
    "mic": BASE,
    "plain sum": replace(BASE, normalize_dim_weights=False, regularize_views="first"),
    "embeddings and output": replace(BASE, align_layers=[0, 3, "output"], isotropy="eigen"),
    "per coordinate": replace(BASE, variance_floor="per_dim", threshold=0.0),
    "mrl": replace(BASE, gamma=0.0),
    "simcse": replace(BASE, dims=[], gamma=0.0),
    "symmetric": replace(BASE, symmetric=True, teacher_margin=0.1),
    **{
        name: load(CONFIGS / f"{name}.yaml", *SMALL).objective
        for name in ("mic_paper", "mic_distill", "ese", "ese_light", "mipic")
    },
    **{
        name: load(CONFIGS / f"{name}.yaml", *SMALL, "objective.align_layers=[2,output]").objective
        for name in ("vicreg", "gor", "sigreg")
    },
    "regression": replace(BASE, regression=TermConfig(1.0), teacher_margin=0.0),
}


OBJECTIVES |= {f"{name} in chunks": OBJECTIVES[name] for name in ("mic", "mic_distill", "mipic")}
CHUNKED = [name for name in OBJECTIVES if name.endswith("in chunks")]
SIZES_KNOWN = ("mic", "mipic")


class Step(nn.Module):
    """Encode the columns of a batch and weigh them: what DDP wraps in training."""

    def __init__(self, encoder: Encoder, config: ObjectiveConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.objective = Objective(config, encoder.hidden_width)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in self.objective.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))

    def forward(self, batch: Batch) -> Loss:
        return self.objective.finish(self.summarise(batch), 3, batch.sizes)

    def summarise(self, batch: Batch) -> BatchStatistics:
        views = [
            self.encoder(tokens, self.objective.layers(view))
            for view, tokens in enumerate(batch.columns)
        ]
        # a teacher of another width, made of the rows themselves: they are all it may depend on
        teacher = [
            view.pooled.detach().sin() if self.objective.taught(number) else None
            for number, view in enumerate(views)
        ]
        return self.objective.summarise(views, teacher=teacher, ids=batch.ids, groups=batch.groups)


class ChunkedStep(Step):
    """The same in chunks of 2 rows; as in Lightning, all but the last go backward inside DDP."""

    def forward(self, batch: Batch) -> Loss:
        loss, last = chunked_step(
            batch.chunks(2),
            self.summarise,
            lambda summary: self.objective.finish(summary, 3, batch.sizes),
            lambda loss: loss.total,
            torch.Tensor.backward,
            self.objective.parameters(),
        )
        return loss._replace(total=last)


def rows(encoder: Encoder, numbers: range) -> Batch:
    """Queries, positives and hard negatives of some rows, of texts of different lengths.

    Some rows share a text, some a group, also with rows of another rank.
    """
    texts = [
        Row(
            (
                sentence(n * 37) + " and a cat" * (n % 3),
                answer((n - n // 7) * 37),
                answer(n * 53 + 7) + " and that" * (n % 2),
            ),
            n % 5,
        )
        for n in numbers
    ]
    return Collate(encoder.tokenize, grouped=True)(texts)


def steps(rank: int, world: int, model: str, dtype: torch.dtype) -> dict[str, dict[str, Tensor]]:
    """Loss, gradients and the number of collectives of a step of every objective."""
    start = sum(ROWS[world][:rank])
    actual: dict[str, dict[str, Tensor]] = {}
    for name, config in OBJECTIVES.items():
        encoder = Encoder.from_pretrained(model, max_length=32, projection=12).to(dtype)
        config = replace(config, dims=[d for d in config.dims if d < 12])
        alone = step = (ChunkedStep if name in CHUNKED else Step)(encoder, config).to(dtype)
        batch = rows(encoder, range(start, start + ROWS[world][rank]))
        if name in SIZES_KNOWN:
            batch = batch._replace(sizes=ROWS[world])
        if world > 1:
            step = DistributedDataParallel(alone)
        calls = count_collectives()
        loss = step(batch)
        forward = len(calls)
        loss.total.backward()
        actual[name] = {
            "loss": loss.total.detach(),
            "negatives": loss.negatives,
            **{f"{key} {dim}": v.detach() for key, t in loss.terms.items() for dim, v in t.items()},
            "collectives": torch.tensor([forward, len(calls) - forward]),
            **{key: p.grad for key, p in alone.named_parameters() if p.grad is not None},
        }
    return actual


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


def main(folder: str, model: str, dtype: str) -> None:
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    actual = steps(rank, world, model, getattr(torch, dtype))
    torch.save(actual, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()
