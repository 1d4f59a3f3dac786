"""Streams in a data module: opened as the config says, and where they stand in a checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import distributed

from mic import collectives
from mic.config.schema_data import DataConfig
from mic.data.batch import Batch, Collate, Prepare
from mic.data.mixture import given_weights
from mic.data.streaming.loader import Position, StreamLoader, Streams, WorkerBatches
from mic.data.streaming.reader import Share, Stream, open_stream
from mic.data.streaming.windows import shares
from mic.encoder.tokenizer import Tokenize
from mic.errors import InputError


class StreamModule(LightningDataModule):
    """A data module whose checkpoints say where its streams stand, if it has any.

    What counts is the last batch trained on; loaders and their workers are ahead of it.
    """

    streams: Streams | None = None

    def __init__(self) -> None:
        super().__init__()
        self.resumed: Position | None = None

    def stream_loader(
        self, streams: Streams, tokenize: Tokenize, prepare: Prepare | None
    ) -> StreamLoader:
        """The batches from the first on, or from the checkpoint's position on.

        Raises InputError for a checkpoint that has none.
        """
        rank, ranks = 0, 1
        if self.trainer is not None:
            rank, ranks = self.trainer.global_rank, self.trainer.world_size
            if self.trainer.fit_loop.restarting and self.resumed is None:
                raise InputError(
                    "data.train: the checkpoint is not one of streams; set "
                    "data.train.NAME.streaming=false, or begin anew"
                )
        self.position = self.resumed or Position([None] * streams.workers)
        self.earlier, self.resumed = self.position, None
        grouped = any(stream.source.group for stream in streams.streams)
        collate = Collate(tokenize, prepare, grouped)
        return streams.loader(collate, rank, ranks, self.position)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        """Lightning's word that a batch is about to be used."""
        if isinstance(batch, Batch) and batch.state is not None:
            self.earlier, self.position = self.position, self.position.after(batch.state)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The positions of all ranks, which all have to ask: a checkpoint keeps rank 0's answer."""
        if self.streams is None or self.trainer is None:
            return {}
        batches: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        own = self.position if batches.ready == batches.processed else self.earlier
        ranks = [list(own)]
        if collectives.in_group():
            ranks = [[]] * collectives.world_size()
            distributed.all_gather_object(ranks, list(own))
        return {"identity": self.streams.identity(len(ranks)), "ranks": ranks}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Begin after the position of this rank.

        Raises InputError for a checkpoint of another stream or of another number of readers.
        """
        if self.streams is None or self.trainer is None:
            raise InputError(
                "data.train: the checkpoint is one of streams; set data.train.NAME.streaming=true"
            )
        for key, value in self.streams.identity(self.trainer.world_size).items():
            saved = state_dict["identity"][key]
            if saved != value:
                raise InputError(
                    f"{key}: {value}, but the checkpoint's streams stand where {saved} left them; "
                    "go on with that, or begin anew"
                )
        self.resumed = Position(*state_dict["ranks"][self.trainer.global_rank])


def open_streams(
    config: DataConfig, batch_size: int, batch_tokens: int | None, seed: int
) -> Streams | None:
    """The streams of `config.train`; None where its corpora are to be indexed.

    Raises InputError for settings that need an index, and for streams that cannot be read.
    """
    for name, source in config.validation.items():
        if source.streaming:
            raise InputError(
                f"data.validation.{name}.streaming=true: the validation loss is that of the same "
                "rows every time; set it to false, and `limit` where there are many"
            )
    wanted = [name for name, source in config.train.items() if source.streaming]
    if not wanted:
        return None
    check(config, f"data.train.{wanted[0]}.streaming=true", batch_tokens)
    streams = [open_stream(name, source) for name, source in config.train.items()]
    check_columns(streams, config)
    given = given_weights({name: source.weight for name, source in config.train.items()})
    weights = given or [1.0] * len(streams)
    for stream, share in zip(streams, shares(weights), strict=True):
        if not share:
            raise InputError(f"data.train.{stream.name}.weight: its share is no row; raise it")
    found = Streams(streams, weights, config, batch_size, seed)
    # what is wrong with the first rows is told before a run begins
    for reader in found.rows(Share(), range(len(streams))).readers:
        reader.take()
    for windows in WorkerBatches(found, Share(), batch_size, None).windows:
        next(windows)
    return found


def check(config: DataConfig, key: str, batch_tokens: int | None) -> None:
    """Refuse settings that a stream cannot serve; `key` is the one that asks for it."""
    name = key.split(".")[2]
    indexed = [other for other, source in config.train.items() if not source.streaming]
    if indexed:
        raise InputError(
            f"{key}, but data.train.{indexed[0]}.streaming=false: all training corpora stream, or "
            "none; set it to true"
        )
    if not config.validation:
        raise InputError(
            f"{key}: no rows can be held out of a stream; set data.validation.{name}.path=FILE and "
            ".columns"
        )
    if batch_tokens is not None:
        raise InputError(
            f"{key}: trainer.batch_tokens={batch_tokens} needs the lengths of all rows; set it to "
            "null, and trainer.batch_size"
        )
    if config.temperature != 1:
        raise InputError(
            f"{key}: data.temperature={config.temperature} needs the corpora's rows to be counted; "
            f"set data.train.{name}.weight, and those of the others"
        )


def check_columns(streams: Sequence[Stream], config: DataConfig) -> None:
    """Refuse batches of rows with different numbers of texts; one text stands twice."""
    columns = {stream.name: max(len(stream.source.columns), 2) for stream in streams}
    if config.batches == "mixed" and len(set(columns.values())) > 1:
        raise InputError(
            f"data.train: corpora of {columns} columns in one batch; give all the same number, or "
            "set data.batches=single"
        )
