"""Retrieval at every width among the validation rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mic.collectives import counts, gather_columns, rank
from mic.data.batch import Batch
from mic.metrics import NestedRetrieval
from mic.metrics.moments import exact_device
from mic.train.step_metrics import record


class NestedRetrievalEval(Callback):
    """Log val/pairs/<metric>/d<dim>: every query of the validation rows looks for its keys.

    Equal texts are one text. The embeddings are those of the validation's own forward pass. Each
    rank ranks its own keys for all queries. Nothing is logged where all keys are their queries, as
    with sentences that stand twice.
    """

    def __init__(self, dims: Sequence[int]) -> None:
        self.dims = tuple(dims)
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._rows = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        if batch.ids is not None:
            queries, keys = outputs["pooled"]
            self._rows.append((queries, keys, batch.ids[:, :2]))

    def on_validation_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
    ) -> None:
        if not self._rows:
            return
        queries, keys, ids = (torch.cat(parts) for parts in zip(*self._rows, strict=True))
        self._rows = []
        sizes = counts(len(ids), ids.device)
        everyone, all_ids = gather_columns([queries, ids], sizes)
        pairs = [(query, key) for query, key in all_ids.tolist()]
        if all(query == key for query, key in pairs):
            return
        asked = first_places(query for query, _ in pairs)
        sought = first_places(key for _, key in pairs)
        relevant, own = judgements(pairs, asked, sought)
        distinct = everyone[list(asked.values())].to(exact_device(queries.device))
        metric = NestedRetrieval(distinct, relevant, self.dims, excluded=own)
        first = sum(sizes[: rank()])
        mine = [  # a key that several ranks hold is that of the first
            (at - first, number)
            for number, at in enumerate(sought.values())
            if first <= at < first + len(ids)
        ]
        numbers = torch.tensor([number for _, number in mine], dtype=torch.long)
        metric.update(keys[[at for at, _ in mine]], numbers)
        scores = metric.compute()
        record(
            trainer,
            {
                f"val/pairs/{name}/d{dim}": value
                for name, values in scores.items()
                for dim, value in values.items()
            },
        )


def first_places(ids: Any) -> dict[int, int]:
    """Every distinct id with the row that has it first."""
    places: dict[int, int] = {}
    for at, one in enumerate(ids):
        places.setdefault(one, at)
    return places


def judgements(
    pairs: Sequence[tuple[int, int]], asked: Mapping[int, int], sought: Mapping[int, int]
) -> tuple[list[dict[int, float]], list[int | None]]:
    """Which keys answer each query, and which key is the query itself and no answer."""
    numbers = {key: number for number, key in enumerate(sought)}
    relevant: dict[int, dict[int, float]] = {query: {} for query in asked}
    for query, key in pairs:
        relevant[query][numbers[key]] = 1.0
    own = [
        None if numbers.get(query) in found else numbers.get(query)
        for query, found in relevant.items()
    ]
    return list(relevant.values()), own
