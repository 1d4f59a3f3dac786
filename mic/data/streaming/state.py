"""Keep where the streams of a run stand, in the form that a checkpoint stores."""

from collections.abc import Mapping
from typing import Any

from torch import distributed

from mic import collectives
from mic.data.streaming.loader import Position, Streams
from mic.errors import InputError


class StreamState:
    """The position of this rank after the last batch that was trained on.

    Loaders and their workers are ahead of it.
    """

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.position = self.before = Position([None] * streams.workers)
        self.loaded: Position | None = None

    def start(self, resuming: bool) -> Position:
        """The position that a loader begins at: the first, or that of the loaded checkpoint.

        Raises InputError when `resuming` from a checkpoint that has no position.
        """
        if resuming and self.loaded is None:
            raise InputError(
                "data.train: the checkpoint is not one of streams; set "
                "data.train.NAME.streaming=false, or begin anew"
            )
        self.position = self.loaded or Position([None] * self.streams.workers)
        self.before, self.loaded = self.position, None
        return self.position

    def advance(self, state: str) -> None:
        """Go on to the position after a batch, which is about to be used and says `state`."""
        self.before, self.position = self.position, self.position.after(state)

    def state_dict(self, in_step: bool) -> dict[str, Any]:
        """The positions of all ranks, which all have to call this.

        With `in_step` the last batch is not trained on yet, and the next run begins with it.
        """
        position = self.before if in_step else self.position
        ranks = [list(position)]
        if collectives.in_group():
            ranks = [[]] * collectives.world_size()
            distributed.all_gather_object(ranks, list(position))
        return {"identity": self.streams.identity(len(ranks)), "ranks": ranks}

    def load_state_dict(self, state_dict: Mapping[str, Any], rank: int, ranks: int) -> None:
        """Let the next loader begin at this rank's position of a checkpoint.

        Raises InputError for a checkpoint of another stream or of another number of readers.
        """
        for key, value in self.streams.identity(ranks).items():
            saved = state_dict["identity"][key]
            if saved != value:
                raise InputError(
                    f"{key}: {value}, but the checkpoint's streams stand where {saved} left them; "
                    "go on with that, or begin anew"
                )
        self.loaded = Position(*state_dict["ranks"][rank])
