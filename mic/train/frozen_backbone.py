"""A backbone that does not learn: its embeddings are computed once, and a head is trained on them.

What a frozen backbone says of a text never changes, and so it is the cached teacher's embedding of
the text as well: one table on disk is the head's input and what a teacher teaches.
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


def refuse(config: Config, encoder: Encoder, layers: Iterable[int]) -> None:
    """Raise an InputError where something else than the head would have to learn or to speak."""
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
    its_own = {
        "name": (None, config.encoder.name),
        "pooling": ("auto", encoder.pooling),
        "max_length": (None, encoder.max_length),
    }
    for key, (default, own) in its_own.items():
        if teacher.kind == "cached" and (given := getattr(teacher, key)) not in (default, own):
            raise InputError(
                f"teacher.{key}={given}: with encoder.frozen=true the backbone itself teaches; set "
                f"teacher.{key}={default or 'null'}"
            )


def table(config: Config, encoder: Encoder, texts: Iterable[str]) -> EmbeddingStore:
    """The backbone's pooled embeddings of all texts; those that are not on disk yet are computed.

    It is kept in teacher.folder, or in the user's cache. Raises InputError for a folder of other
    embeddings, RunError for one that cannot be filled.
    """
    bare = encoder.headless().to(accelerator())
    folder = Path(config.teacher.folder).expanduser() if config.teacher.folder else None
    return fill_teacher_store(folder, bare, texts, config.teacher.batch_size)


def is_identity(head: nn.Linear) -> bool:
    return torch.equal(head.weight, torch.eye(*head.weight.shape))


@torch.no_grad()
def begin(config: Config, encoder: Encoder, known: EmbeddingStore, data: PairDataModule) -> None:
    """Put the head where `encoder.projection_start` says.

    For "pca" its rows are the principal directions of the embeddings, at length 1, of up to 20,000
    training rows' texts: cut to d, the head gives the best linear reconstruction of d numbers. Of
    fewer texts than coordinates the last directions are any that complete a rotation.
    """
    head = encoder.projection
    if config.encoder.projection_start == "identity" or head is None:
        return
    rows = data.sample(PCA_ROWS, config.seed)
    texts = sorted({text for row in rows for text in row[:2]})
    directions = principal_directions(unit(known(texts).float()))
    head.weight.copy_(directions.T[: head.out_features])


def encode(
    encoder: Encoder, columns: Sequence[Mapping[str, Tensor]], prepared: Sequence[Prepared] | None
) -> list[Encoded]:
    """What the head makes of the columns' embeddings, looked up by `EmbeddingStore`.

    Raises RunError when they were not.
    """
    head = encoder.projection
    assert head is not None
    found = []
    looked_up: Sequence[Prepared | None] = prepared or [None] * len(columns)
    for tokens, rows in zip(columns, looked_up, strict=True):
        if not isinstance(rows, Tensor):
            raise RunError(
                "encoder.frozen=true: no embeddings to train on; call fill_teacher(data.texts()) "
                "before training, and set data.prepare=module.prepare"
            )
        pooled = head(rows.to(head.weight.device, head.weight.dtype))
        found.append(Encoded(pooled, {}, tokens["attention_mask"].bool()))
    return found
