"""The LightningModule: encode a batch, teach it, weigh the losses, log them; an optimiser."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from omegaconf import OmegaConf
from torch import Tensor

from mic.config.loading import defaults
from mic.config.schema import Config
from mic.console import notice
from mic.data.batch import Batch, Prepare
from mic.data.sources.examples import kind_of
from mic.encoder.encoder import Encoder
from mic.encoder.teacher import CachedTeacher, Teacher, build_teacher
from mic.encoder.tokenizer import Tokenize
from mic.errors import InputError, RunError
from mic.nested import Encoded, check_dims
from mic.objective.align_layers import numbered
from mic.objective.gradcache import chunked_step
from mic.objective.objective import Loss, Objective
from mic.objective.statistics import BatchStatistics, join
from mic.train.frozen_backbone import FrozenBackbone
from mic.train.optimizer import adamw, is_sharded, refuse_sharding, shard
from mic.train.step_metrics import record, refuse_nan, scalars


class MICModule(LightningModule):
    """An encoder, and its teacher where there is one, trained with the MIC objective.

    `config` is a `Config`, or the plain dict of one that a checkpoint holds, so that
    `MICModule.load_from_checkpoint(path)` needs nothing else. `trainer.fit(module, data)` with a
    `PairDataModule` needs no other call before it: what a cached teacher or a frozen backbone looks
    up is embedded before the first step, by the first rank of every node.

    Raises InputError for an encoder or a teacher that cannot be loaded, or widths and layers that
    it does not have.
    """

    def __init__(self, config: Config | Mapping[str, Any]) -> None:
        super().__init__()
        self.config = deepcopy(config) if isinstance(config, Config) else from_plain(config)
        # plain dicts load with weights_only=True
        self.save_hyperparameters({"config": asdict(self.config)})
        self.encoder = load_encoder(self.config)
        asked, depth = self.config.objective, self.encoder.depth
        objective = numbered(asked, depth)
        if not depth and objective.align_layers != asked.align_layers:
            notice(
                "the encoder has no transformer layers: regularizers of layers are off; "
                "objective.align_layers=[output] regularizes the embedding"
            )
        self.objective = Objective(objective, self.encoder.hidden_width)
        for view in range(3):  # a hard negative is one of the columns from the third on
            self.encoder.watch(self.objective.layers(view))
        self.frozen: FrozenBackbone | None = None
        if self.config.encoder.frozen:
            layers = set().union(*map(self.objective.layers, range(3)))
            self.frozen = FrozenBackbone(self.config, self.encoder, layers)
        else:
            refuse_equal_views(self.config, self.encoder)
        self.teacher: Teacher | None = None
        self._embedded: Any = None  # the data module whose texts are on disk
        if not self.looks_up:
            self.fill_teacher(())
        if self.config.trainer.compile:
            self.encoder.compile_backbone()
        self.train()  # transformers loads in eval mode, where dropout, our augmentation, is off

    @property
    def looks_up(self) -> bool:
        """Whether training looks embeddings up, and every text has to be embedded before it."""
        return self.config.teacher.kind == "cached" or self.frozen is not None

    @property
    def prepare(self) -> Prepare | None:
        """Turns a column's texts into what the teacher, or the frozen backbone, takes of them."""
        if self.frozen is not None:
            return self.frozen.table
        return self.teacher.prepare if self.teacher is not None else None

    def fill_teacher(self, texts: Iterable[str]) -> None:
        """Build the teacher; a cached one, and a frozen backbone, embed those of the texts that
        are not on disk yet."""
        if self.frozen is not None:
            self.frozen.fill(texts)
        if self.frozen is not None and self.config.teacher.kind == "cached":
            assert self.frozen.table is not None
            self.teacher = CachedTeacher(self.frozen.table)
        else:
            name = self.config.encoder.name
            self.teacher = build_teacher(
                self.config.teacher,
                self.encoder,
                name,
                texts,
                self.encoder.longest(self.config.encoder.max_length),
            )
        regression = self.config.objective.regression.weight
        if self.teacher is not None and regression and self.teacher.width != self.encoder.width:
            raise InputError(
                f"objective.regression.weight={regression}: the teacher is {self.teacher.width} "
                f"wide, the student {self.encoder.width}; set it to 0 (distillation takes any)"
            )

    def embed_texts(self, data: Any) -> None:
        """Embed every text of a data module that training looks up; none twice.

        Every rank has to call it, the first one of a node before the others.
        """
        if self.looks_up and self._embedded is not data and hasattr(data, "texts"):
            self.fill_teacher(data.texts())
            self._embedded = data

    def prepare_data(self) -> None:
        """Embed what is looked up: Lightning calls this on the first rank of every node alone."""
        self.embed_texts(getattr(self.trainer, "datamodule", None))

    def setup(self, stage: str) -> None:
        """Open the embeddings on every rank; start the head of a frozen backbone."""
        data = getattr(self.trainer, "datamodule", None)
        self.embed_texts(data)
        if self.frozen is not None and stage == "fit" and self.trainer.ckpt_path is None:
            self.frozen.start_head(data)

    def configure_model(self) -> None:
        """Shard the encoder over the ranks, where Lightning's ModelParallelStrategy asks."""
        if self.device_mesh is not None and not is_sharded(self.encoder):
            refuse_sharding(self.config, self.objective)
            shard(self.encoder, self.device_mesh["data_parallel"])

    @property
    def tokenize(self) -> Tokenize:
        """Texts to tokens as training takes them, for a `PairDataModule`."""
        return training_tokenize(self.config, self.encoder)

    def forward(self, batch: Batch) -> Loss:
        """The loss of one tokenized batch and its terms."""
        return self.finish(self.summarise_all(batch), batch.sizes)

    def summarise_all(self, batch: Batch) -> BatchStatistics:
        """What the losses need of a batch, encoded in chunks where the config says so."""
        # ranks may hold one row more or less, and must pass a sharded encoder equally often
        size = None if is_sharded(self.encoder) else self.config.trainer.chunk_size
        size = size or batch.size
        return join([self.summarise(chunk) for chunk in batch.chunks(size)])

    def summarise(self, batch: Batch) -> BatchStatistics:
        """What the losses need of a batch or of a chunk of one."""
        return self.summarise_views(batch, self.encode(batch))

    def summarise_views(self, batch: Batch, views: Sequence[Encoded]) -> BatchStatistics:
        """What the losses need of a batch that is encoded already."""
        taught = [self.teach(batch, view, encoded.pooled) for view, encoded in enumerate(views)]
        return self.objective.summarise(views, teacher=taught, ids=batch.ids, groups=batch.groups)

    def encode(self, batch: Batch, together: bool = True) -> list[Encoded]:
        """The columns' embeddings and hidden states; in one forward pass if they are one length,
        unless `together` is false."""
        columns = batch.columns
        if self.frozen is not None:
            return self.frozen.encode(columns, batch.prepared)
        layers = [self.objective.layers(view) for view in range(len(columns))]
        shapes = {tokens["input_ids"].shape for tokens in columns}
        # all ranks must pass a sharded encoder equally often
        if len(shapes) > 1 or not together or is_sharded(self.encoder):
            return [self.encoder(*view) for view in zip(columns, layers, strict=True)]
        joined = {name: torch.cat([tokens[name] for tokens in columns]) for name in columns[0]}
        encoded = self.encoder(joined, sorted(set().union(*layers)))
        rows = shapes.pop()[0]
        return [
            encoded.rows(slice(view * rows, (view + 1) * rows), wanted)
            for view, wanted in enumerate(layers)
        ]

    def teach(self, batch: Batch, view: int, student: Tensor) -> Tensor | None:
        """The teacher's embeddings of a column, if the objective wants them."""
        if not self.objective.taught(view):
            return None
        if self.teacher is None:
            raise RunError(
                "teacher.kind=cached: no texts to look up; give trainer.fit a PairDataModule, or "
                "call fill_teacher(texts) before"
            )
        prepared = None if batch.prepared is None else batch.prepared[view]
        embeddings: Tensor = self.teacher(batch.columns[view], prepared, student)
        return embeddings

    def finish(self, summary: BatchStatistics, sizes: Sequence[int] | None) -> Loss:
        return self.objective.finish(summary, self.global_step, sizes)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.config.trainer.chunk_size is None:
            loss: Loss = self(batch)
            step = loss.total
        else:
            loss, step = self.chunked_step(batch, batch_idx)
        taken, settings = self.global_step + 1, self.config.trainer
        steps = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        if steps and (taken % settings.log_every == 0 or taken == settings.max_steps):
            values = scalars(loss)  # waits for a GPU: not at every step
            refuse_nan(values, self.global_step, self.config)
            values["learning_rate"] = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
            record(
                self.trainer,
                {f"train/{name}": value for name, value in values.items()},
                taken,
            )
        return step

    def chunked_step(self, batch: Batch, batch_idx: int) -> tuple[Loss, Tensor]:
        """The loss of a batch encoded in chunks; gradients of all chunks but the last are in place.

        Of these Lightning knows nothing, and it clears gradients between this step and the backward
        pass: so that is done here, where a new optimiser step begins.
        """
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.optimizers().zero_grad()  # type: ignore[union-attr]
        return chunked_step(
            batch.chunks(self.config.trainer.chunk_size or batch.size),
            self.summarise,
            lambda summary: self.finish(summary, batch.sizes),
            lambda loss: loss.total,
            self.backward_in_place,
            self.objective.parameters(),
        )

    def backward_in_place(self, loss: Tensor) -> None:
        """Add to the gradients as Lightning does: a share of the accumulated, scaled for fp16."""
        self.trainer.strategy.backward(loss / self.trainer.accumulate_grad_batches, None)

    def optimizer_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        if self.config.trainer.chunk_size is None:
            super().optimizer_zero_grad(*args, **kwargs)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.teacher is not None:
            self.teacher.step(self.encoder)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:  # noqa: ARG002
        """Log the loss; hand on, to callbacks, the embeddings of queries and positives ("pooled")
        and, where it sees both, those of the teacher ("teacher")."""
        summary = self.summarise_all(batch)
        loss = self.finish(summary, batch.sizes)
        # of all ranks: their own sizes Lightning would average in whole numbers
        rows = sum(batch.sizes) if batch.sizes else batch.size
        self.log("val/loss", loss.total, batch_size=rows, on_epoch=True, sync_dist=True)
        seen = {
            name: [summary.rows[name, view] for view in range(2) if (name, view) in summary.rows]
            for name in ("pooled", "teacher")
        }
        return {
            "loss": loss.total,
            "pooled": seen["pooled"],
            "teacher": seen["teacher"] if len(seen["teacher"]) == 2 else None,
        }

    def configure_optimizers(self) -> Any:
        return adamw(self, self.config.trainer)


def training_tokenize(config: Config, encoder: Encoder) -> Tokenize:
    """Texts to tokens, cut to what training keeps of them."""
    return replace(encoder.tokenize, max_length=encoder.longest(config.encoder.max_length))


def refuse_equal_views(config: Config, encoder: Encoder) -> None:
    """Raise an InputError for single texts, which stand twice in a batch, without dropout."""
    single = [name for name, source in config.data.train.items() if kind_of(source) == "single"]
    if single and not encoder.has_dropout():
        raise InputError(
            f"data.train.{single[0]}: one text column, and {config.encoder.name} has no dropout: "
            "both views of a text would be equal, and nothing would be learnt; give pairs (two "
            "columns), or a model with dropout"
        )


def from_plain(plain: Mapping[str, Any]) -> Config:
    """The config of the plain dict that `dataclasses.asdict` made of it, as checkpoints hold it."""
    config = OmegaConf.to_object(OmegaConf.merge(defaults(), dict(plain)))
    assert isinstance(config, Config)
    return config


def load_encoder(config: Config) -> Encoder:
    """The encoder of a config, frozen where the config says so, its widths checked."""
    wanted = config.encoder
    encoder = Encoder.from_pretrained(
        wanted.name,
        pooling=wanted.pooling,
        max_length=wanted.eval_max_length,
        projection=wanted.projection,
        sha256=wanted.sha256,
        trust_remote_code=wanted.trust_remote_code,
    )
    for dims in (config.objective.dims, config.evaluation.dims):
        if dims:
            check_dims(dims, encoder.width)
    encoder.freeze(wanted.freeze_embeddings, wanted.freeze_layers)
    if wanted.projection_start == "pca" and not wanted.frozen:
        raise InputError(
            "encoder.projection_start=pca: the components are those of a frozen backbone; set "
            "encoder.frozen=true, or encoder.projection_start=identity"
        )
    if wanted.frozen:
        encoder.headless().model.requires_grad_(False)
    elif not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise InputError(
            f"encoder.freeze_layers={wanted.freeze_layers}: nothing is left to train; freeze fewer "
            "layers or set encoder.projection"
        )
    if wanted.gradient_checkpointing:
        try:
            encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
        except ValueError as error:
            raise InputError(f"encoder.gradient_checkpointing=true: {error}") from None
    return encoder
