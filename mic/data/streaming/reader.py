"""Rows of a corpus read on the fly: no index, no end, shared out over ranks and their workers.

`datasets` shares the shards out, shuffles them before every pass but the first, and knows how to go
on in the middle of one. A local file is a shard; where files do not go round, the rows of the last
ones are dealt out, so that every worker has as many shards. A Hub data set has the shards it has:
those of a rank are dealt to its workers, and ranks that they do not divide among take every
`ranks`-th row of all of them.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from mic.config.schema_data import CorpusConfig
from mic.data.order.permutation import key_of
from mic.data.sources.examples import Example, OnBadRow, columns_read, judged, kind_of, number
from mic.data.sources.files import (
    Row,
    checked,
    files_of,
    fingerprint,
    load_hub,
    one_line,
    read_file,
)
from mic.errors import InputError, RunError

SHUFFLE = 31  # what a key is for


class Share(NamedTuple):
    """One worker among those of all ranks."""

    rank: int = 0
    ranks: int = 1
    worker: int = 0
    workers: int = 1


class Slice(NamedTuple):
    """A shard: of the rows of some files, one after the other, every `step`-th from `offset` on."""

    files: tuple[str, ...]
    offset: int = 0
    step: int = 1


def cut(files: Sequence[str], readers: int) -> list[Slice]:
    """Files as shards, as many for each reader: whole while they go round, the last ones in slices.

    >>> [len(cut("abc", readers)) for readers in (1, 2, 3, 4)]
    [3, 4, 3, 12]
    """
    whole = len(files) // readers * readers
    step = readers // math.gcd(readers, len(files) - whole)
    slices = [Slice((file,), offset, step) for file in files[whole:] for offset in range(step)]
    return [Slice((file,)) for file in files[:whole]] + slices


def read_slices(
    slices: Sequence[Slice], columns: tuple[str, ...], limit: int | None
) -> Iterator[dict[str, Any]]:
    """The rows of shards, as `datasets` takes them."""
    for one in slices:
        parts = (checked(read_file(Path(file)), columns) for file in one.files)
        for row in islice(chain.from_iterable(parts), one.offset, limit, one.step):
            yield row._asdict()


@dataclass(frozen=True)
class Stream:
    """A corpus that is read on the fly: local files, or a Hub data set.

    `described` tells it from another without reading it.
    """

    name: str
    source: CorpusConfig
    files: tuple[str, ...] | None
    hub: Any = None
    described: str = ""

    def dataset(self, share: Share) -> Any:
        """The rows of a rank, as a `datasets.IterableDataset` that knows its workers itself.

        Of `limit` rows of a Hub data set every shard gives its part.

        Raises InputError for more workers than shards.
        """
        from datasets import IterableDataset
        from datasets.distributed import split_dataset_by_node

        limit = self.source.limit
        if self.files is None:
            whole = self.hub if limit is None else self.hub.take(limit)
        else:
            readers = share.ranks * share.workers
            # the top rows of all files: each reader counts through them and keeps its own
            top = [Slice(self.files, offset, readers) for offset in range(readers)]
            kept = {
                "slices": cut(self.files, readers) if limit is None else top,
                "columns": tuple(columns_read(self.source)),
                "limit": limit,
            }
            whole = IterableDataset.from_generator(read_slices, gen_kwargs=kept)
        found = split_dataset_by_node(whole, share.rank, share.ranks)
        if found.num_shards < share.workers:
            raise InputError(
                f"data.num_workers={share.workers}: data.train.{self.name} has {found.num_shards} "
                f"files for the workers of a rank; set data.num_workers={found.num_shards}"
            )
        return found


def open_stream(name: str, source: CorpusConfig) -> Stream:
    """The stream of a source.

    Raises InputError for one that cannot be read, or settings that need an index of all rows.
    """
    key = f"data.train.{name}"
    if source.deduplicate or source.label:
        asked = "deduplicate=true" if source.deduplicate else f"label={source.label}"
        raise InputError(
            f"{key}.{asked}: needs all rows at hand; drop it, or set {key}.streaming=false"
        )
    if source.where:
        raise InputError(
            f"{key}.where: a stream has every row of its files; drop it, or set {key}.streaming="
            "false"
        )
    kind_of(source)
    files = files_of(source)
    if files is None:
        return Stream(name, source, None, load_hub(source, streaming=True), fingerprint(source))
    held = sum(file.stat().st_size for file in files)
    described = f"streamed: {len(files)} files of {held} bytes"
    return Stream(name, source, tuple(map(str, files)), described=described)


class Reader:
    """A stream's examples on one worker, pass after pass without end.

    `state` is where it stands, in JSON's types; a reader begun with it goes on there.

    Raises InputError for a bad row, and for a pass without any that can be used.
    """

    def __init__(
        self,
        stream: Stream,
        share: Share,
        seed: int,
        on_bad_row: OnBadRow,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.stream = stream
        self.share = share
        self.seed = seed
        self.on_bad_row = on_bad_row
        self.whole = stream.dataset(share)
        self.passes: int = state["passes"] if state else 0
        self.counts: Counter[str] = Counter(state["counts"] if state else {})
        self.begin(state["rows"] if state else None)

    def begin(self, rows: Mapping[str, Any] | None = None) -> None:
        """Begin a pass, or go on with it where `rows` says."""
        from datasets.distributed import split_dataset_by_node

        # a new object, whose pass number no other process shares
        self.dataset = split_dataset_by_node(self.whole, 0, 1)
        shuffled = 1 + key_of(self.seed, SHUFFLE, self.passes) % 2**31  # alike on all workers
        self.dataset.set_epoch(shuffled if self.passes else 0)
        if rows is not None:
            self.dataset.load_state_dict(rows)
        self.unread, self.begun = True, rows
        self.rows = checked(self.read(), columns_read(self.stream.source))

    def read(self) -> Iterator[Row]:
        """The rows of a pass, or of what is left of it."""
        path = self.stream.source.path
        try:
            for values in self.dataset:
                self.unread = False
                if self.stream.files is None:
                    yield Row(f"{path}: row {self.counts['read'] + 1}{self.reader}", values)
                else:
                    yield Row(**values)
        except InputError:
            raise
        except Exception as error:  # the network's, the Hub client's, pyarrow's
            kind = RunError if self.passes or self.counts["read"] else InputError
            raise kind(
                f"{path}: not readable after row {self.counts['read']}{self.reader} of pass "
                f"{self.passes + 1}: {type(error).__name__}: {one_line(error)}"
            ) from error

    def take(self) -> Example:
        """The next example."""
        while True:
            for row in self.rows:
                self.counts["read"] += 1
                example, reason = self.judged(row)
                if example is not None and reason is None:
                    self.counts["kept"] += 1
                    return self.salted(example)
                self.counts[reason or "bad"] += 1
            if not self.counts["kept"]:
                raise InputError(self.nothing())
            self.passes += 1
            self.counts.clear()
            self.begin()

    def judged(self, row: Row) -> tuple[Example | None, str | None]:
        try:
            return judged(row, self.stream.source, self.on_bad_row)
        except InputError as error:
            if self.stream.files is not None:
                raise
            # its number is the reader's own: what it holds is easier to find
            raise InputError(f"{error}; it is {dict(row.values)!r:.200}") from None

    def salted(self, example: Example) -> Example:
        """The example with a group of its own corpus, as in `mic.data.subset.keys_of`."""
        if example.group is None:
            return example
        return Example(example.texts, example.group ^ number(self.stream.name))

    def state(self) -> dict[str, Any]:
        # before its first row, a data set does not yet say where it was told to begin
        rows = self.begun if self.unread else self.dataset.state_dict()
        return {"passes": self.passes, "counts": dict(self.counts), "rows": rows}

    @property
    def reader(self) -> str:
        """Who reads, for messages."""
        rank, ranks, worker, workers = self.share
        of_rank = f" of rank {rank}" if ranks > 1 else ""
        return f" of worker {worker}{of_rank}" if workers > 1 else of_rank

    def nothing(self) -> str:
        reasons = ", ".join(f"{count} {why}" for why, count in self.counts.items()) or "0 read"
        return (
            f"data.train.{self.stream.name}: {self.stream.source.path}: a whole pass{self.reader} "
            f"has no row to train on ({reasons}); give more rows, fewer workers or other limits"
        )
