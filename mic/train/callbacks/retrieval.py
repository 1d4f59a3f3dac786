"""Log retrieval at every width among the validation rows."""

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
    """Log val/pairs/<metric>/d<dim>: every query of the validation rows searches for its keys.

    Equal texts count as one. The embeddings are those of the validation's own forward pass. Each
    rank ranks its keys for all queries. Nothing is logged where every key is its query, as with
    single sentences, whose two views have one text.
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
        queries, keys, ids = (torch.cat(batches) for batches in zip(*self._rows, strict=True))
        self._rows = []
        sizes = counts(len(ids), ids.device)
        all_queries, all_ids = gather_columns([queries, ids], sizes)
        pairs = [(query, key) for query, key in all_ids.tolist()]
        if all(query == key for query, key in pairs):
            return
        asked = first_rows(query for query, _ in pairs)
        sought = first_rows(key for _, key in pairs)
        relevant, self_keys = relevance(pairs, asked, sought)
        distinct = all_queries[list(asked.values())].to(exact_device(queries.device))
        metric = NestedRetrieval(distinct, relevant, self.dims, excluded=self_keys)
        first = sum(sizes[: rank()])
        mine = [  # a key that several ranks hold is that of the first
            (row - first, number)
            for number, row in enumerate(sought.values())
            if first <= row < first + len(ids)
        ]
        numbers = torch.tensor([number for _, number in mine], dtype=torch.long)
        metric.update(keys[[row for row, _ in mine]], numbers)
        scores = metric.compute()
        record(
            trainer,
            {
                f"val/pairs/{name}/d{dim}": value
                for name, values in scores.items()
                for dim, value in values.items()
            },
        )


def first_rows(ids: Any) -> dict[int, int]:
    """Every distinct id with the first row that has it."""
    rows: dict[int, int] = {}
    for row, text in enumerate(ids):
        rows.setdefault(text, row)
    return rows


def relevance(
    pairs: Sequence[tuple[int, int]], asked: Mapping[int, int], sought: Mapping[int, int]
) -> tuple[list[dict[int, float]], list[int | None]]:
    """The keys relevant to each query, and the key that is the query itself and not relevant."""
    numbers = {key: number for number, key in enumerate(sought)}
    relevant: dict[int, dict[int, float]] = {query: {} for query in asked}
    for query, key in pairs:
        relevant[query][numbers[key]] = 1.0
    self_keys = [
        None if numbers.get(query) in keys else numbers.get(query)
        for query, keys in relevant.items()
    ]
    return list(relevant.values()), self_keys
