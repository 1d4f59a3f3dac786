"""Train a head on a frozen backbone, whose embeddings of all texts are computed once.

A frozen backbone's embedding of a text never changes, and so it is the cached teacher's embedding
of the text as well: one table on disk is the head's input and what a teacher teaches.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mic.config.schema import Config
from mic.data.datamodule import PairDataModule
from mic.distributed.environment import accelerator
from mic.encoder.embedding_store import EmbeddingStore
from mic.encoder.encoder import Encoder
from mic.encoder.teacher import Prepared, fill_teacher_store
from mic.errors import InputError, RunError
from mic.evaluation.scoring import principal_directions
from mic.nested import Encoded, unit

PCA_ROWS = 20_000


class FrozenBackbone:
    """The frozen backbone of an encoder, read from a table on disk, and the head that learns.

    `table` has the backbone's pooled embeddings by their text, once `fill` was given the texts.

    Raises InputError for a config or an objective (`layers` are those that it reads) with which
    more than the head would learn.
    """

    def __init__(self, config: Config, encoder: Encoder, layers: Iterable[int]) -> None:
        refuse_conflicts(config, encoder, layers)
        self.config = config
        self.encoder = encoder
        self.table: EmbeddingStore | None = None

    @property
    def head(self) -> nn.Linear:
        head = self.encoder.projection
        assert head is not None
        return head

    def fill(self, texts: Iterable[str]) -> None:
        """Compute the embeddings of those texts that are not on disk yet.

        They are stored in teacher.folder, or in the user's cache. Raises InputError for a folder of
        other embeddings, RunError for one that cannot be filled.
        """
        settings = self.config.teacher
        bare = self.encoder.headless().to(accelerator())
        bare.max_length = self.encoder.longest(self.config.encoder.max_length)
        folder = Path(settings.folder).expanduser() if settings.folder else None
        self.table = fill_teacher_store(folder, bare, texts, settings.batch_size)

    @torch.no_grad()
    def start_head(self, data: PairDataModule | None) -> None:
        """Set a head that has not learnt yet as `encoder.projection_start` says.

        For "pca" its rows are the principal directions of the embeddings, at length 1, of up to
        20,000 training rows' texts: cut to d, the head gives the best linear reconstruction of d
        dimensions. Of fewer texts than coordinates the last directions are any that complete a
        rotation.

        Raises InputError for "pca" without a data module, whose texts `fill` was given.
        """
        if self.config.encoder.projection_start == "identity" or not is_identity(self.head):
            return
        if self.table is None or data is None:
            raise InputError(
                "encoder.projection_start=pca: the components are those of the training texts; "
                "give trainer.fit a PairDataModule, or set it to identity"
            )
        rows = data.sample(PCA_ROWS, self.config.seed)
        texts = sorted({text for row in rows for text in row[:2]})
        directions = principal_directions(unit(self.table(texts).float()))
        self.head.weight.copy_(directions.T[: self.head.out_features])

    def encode(
        self, columns: Sequence[Mapping[str, Tensor]], prepared: Sequence[Prepared] | None
    ) -> list[Encoded]:
        """The head's output for the columns' embeddings, which `table` looked up (`prepared`).

        Raises RunError when they were not looked up.
        """
        head, encoded = self.head, []
        looked_up: Sequence[Prepared | None] = prepared or [None] * len(columns)
        for tokens, rows in zip(columns, looked_up, strict=True):
            if not isinstance(rows, Tensor):
                raise RunError(
                    "encoder.frozen=true: no embeddings to train on; give trainer.fit a "
                    "PairDataModule, or call fill_teacher(texts) before and collate batches with "
                    "prepare=module.prepare"
                )
            pooled = head(rows.to(head.weight.device, head.weight.dtype))
            encoded.append(Encoded(pooled, {}, tokens["attention_mask"].bool()))
        return encoded


def refuse_conflicts(config: Config, encoder: Encoder, layers: Iterable[int]) -> None:
    """Raise an InputError for settings under which something besides the head would have to learn,
    or something besides the backbone's embeddings would be read."""
    frozen, teacher = "encoder.frozen=true: the head alone learns", config.teacher
    if encoder.projection is None:
        raise InputError(
            f"{frozen}, and there is none; set encoder.projection={encoder.hidden_width}"
        )
    if wanted := sorted(layers):
        raise InputError(
            f"{frozen}, and the objective reads the backbone's layers {wanted}; set "
            "objective.align_layers=[output] and terms of other layers to weight 0"
        )
    if teacher.kind in ("ema", "frozen"):
        raise InputError(f"{frozen}; in the place of teacher.kind={teacher.kind} set cached")
    if config.encoder.projection_start == "pca" and not is_identity(encoder.projection):
        raise InputError(
            f"encoder.projection_start=pca: {config.encoder.name} has a trained head, which would "
            "be lost; set it to identity"
        )
    settings = {
        "name": (None, config.encoder.name),
        "pooling": ("auto", encoder.pooling),
        "max_length": (None, encoder.longest(config.encoder.max_length)),
    }
    for key, (default, value) in settings.items():
        if teacher.kind == "cached" and (given := getattr(teacher, key)) not in (default, value):
            raise InputError(
                f"teacher.{key}={given}: with encoder.frozen=true the backbone itself teaches; set "
                f"teacher.{key}={default or 'null'}"
            )


def is_identity(head: nn.Linear) -> bool:
    weight = head.weight
    return torch.equal(weight, torch.eye(*weight.shape, dtype=weight.dtype, device=weight.device))
