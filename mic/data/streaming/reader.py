"""Read the rows of a corpus on the fly, without an end, divided among ranks and their workers.

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
from mic.data.order.permutation import derive_key
from mic.data.sources.examples import Example, OnBadRow, check_row, columns_read, hash_text, kind_of
from mic.data.sources.files import (
    SourceRow,
    files_of,
    load_hub,
    read_file,
    require_columns,
    short_reason,
    source_fingerprint,
)
from mic.errors import InputError, RunError

SHUFFLE = 31  # what a key is for


class WorkerShare(NamedTuple):
    """One worker among those of all ranks."""

    rank: int = 0
    ranks: int = 1
    worker: int = 0
    workers: int = 1


class Shard(NamedTuple):
    """Every `step`-th row of some files, read one after the other, from row `offset` on."""

    files: tuple[str, ...]
    offset: int = 0
    step: int = 1


def cut_shards(files: Sequence[str], readers: int) -> list[Shard]:
    """Files as shards, equally many for each reader: whole files first, the last ones in slices.

    >>> [len(cut_shards("abc", readers)) for readers in (1, 2, 3, 4)]
    [3, 4, 3, 12]
    """
    whole_files = len(files) // readers * readers
    rest = files[whole_files:]
    step = readers // math.gcd(readers, len(rest))
    slices = [Shard((file,), offset, step) for file in rest for offset in range(step)]
    return [Shard((file,)) for file in files[:whole_files]] + slices


def read_shards(
    shards: Sequence[Shard], columns: tuple[str, ...], limit: int | None
) -> Iterator[dict[str, Any]]:
    """The rows of shards, as `datasets` takes them."""
    for shard in shards:
        files = (require_columns(read_file(Path(file)), columns) for file in shard.files)
        for row in islice(chain.from_iterable(files), shard.offset, limit, shard.step):
            yield row._asdict()


@dataclass(frozen=True)
class Stream:
    """A corpus that is read on the fly: local files, or a Hub data set.

    `described` identifies it without reading it.
    """

    name: str
    source: CorpusConfig
    files: tuple[str, ...] | None
    hub: Any = None
    described: str = ""

    def dataset(self, share: WorkerShare) -> Any:
        """The rows of a rank, as a `datasets.IterableDataset` that knows its workers itself.

        Of `limit` rows of a Hub data set every shard gives its part.

        Raises InputError for more workers than shards.
        """
        from datasets import IterableDataset
        from datasets.distributed import split_dataset_by_node

        limit = self.source.limit
        if self.files is None:
            dataset = self.hub if limit is None else self.hub.take(limit)
        else:
            readers = share.ranks * share.workers
            # the first rows of all files: each reader counts through them and takes its share
            first = [Shard(self.files, offset, readers) for offset in range(readers)]
            arguments = {
                "shards": cut_shards(self.files, readers) if limit is None else first,
                "columns": tuple(columns_read(self.source)),
                "limit": limit,
            }
            dataset = IterableDataset.from_generator(read_shards, gen_kwargs=arguments)
        of_rank = split_dataset_by_node(dataset, share.rank, share.ranks)
        if of_rank.num_shards < share.workers:
            raise InputError(
                f"data.num_workers={share.workers}: data.train.{self.name} has {of_rank.num_shards}"
                f" files for the workers of a rank; set data.num_workers={of_rank.num_shards}"
            )
        return of_rank


def open_stream(name: str, source: CorpusConfig) -> Stream:
    """The stream of a source.

    Raises InputError for one that cannot be read, or settings that need an index of all rows.
    """
    key = f"data.train.{name}"
    if source.deduplicate or source.label:
        setting = "deduplicate=true" if source.deduplicate else f"label={source.label}"
        raise InputError(
            f"{key}.{setting}: needs all rows at hand; drop it, or set {key}.streaming=false"
        )
    if source.where:
        raise InputError(
            f"{key}.where: a stream has every row of its files; drop it, or set {key}.streaming="
            "false"
        )
    kind_of(source)
    files = files_of(source)
    if files is None:
        return Stream(
            name, source, None, load_hub(source, streaming=True), source_fingerprint(source)
        )
    size = sum(file.stat().st_size for file in files)
    described = f"streamed: {len(files)} files of {size} bytes"
    return Stream(name, source, tuple(map(str, files)), described=described)


class Reader:
    """A stream's examples on one worker, pass after pass without end.

    `state` is where it stands, in JSON's types; a reader begun with it goes on there.

    Raises InputError for a bad row, and for a pass without any that can be used.
    """

    def __init__(
        self,
        stream: Stream,
        share: WorkerShare,
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
        shuffled = 1 + derive_key(self.seed, SHUFFLE, self.passes) % 2**31  # alike on all workers
        self.dataset.set_epoch(shuffled if self.passes else 0)
        if rows is not None:
            self.dataset.load_state_dict(rows)
        self.unread, self.begun = True, rows
        self.rows = require_columns(self.read(), columns_read(self.stream.source))

    def read(self) -> Iterator[SourceRow]:
        """The rows of a pass, or of what is left of it."""
        path = self.stream.source.path
        try:
            for values in self.dataset:
                self.unread = False
                if self.stream.files is None:
                    yield SourceRow(f"{path}: row {self.counts['read'] + 1}{self.reader}", values)
                else:
                    yield SourceRow(**values)
        except InputError:
            raise
        except Exception as error:  # the network's, the Hub client's, pyarrow's
            kind = RunError if self.passes or self.counts["read"] else InputError
            raise kind(
                f"{path}: not readable after row {self.counts['read']}{self.reader} of pass "
                f"{self.passes + 1}: {type(error).__name__}: {short_reason(error)}"
            ) from error

    def take(self) -> Example:
        """The next example."""
        while True:
            for row in self.rows:
                self.counts["read"] += 1
                example, reason = self.check_row(row)
                if example is not None and reason is None:
                    self.counts["kept"] += 1
                    return self.with_corpus_group(example)
                self.counts[reason or "bad"] += 1
            if not self.counts["kept"]:
                raise InputError(self.explain_no_row())
            self.passes += 1
            self.counts.clear()
            self.begin()

    def check_row(self, row: SourceRow) -> tuple[Example | None, str | None]:
        try:
            return check_row(row, self.stream.source, self.on_bad_row)
        except InputError as error:
            if self.stream.files is not None:
                raise
            # the row's number is this reader's: its content is easier to search for
            raise InputError(f"{error}; it is {dict(row.values)!r:.200}") from None

    def with_corpus_group(self, example: Example) -> Example:
        """The example with a group of this corpus alone, as in `mic.data.subset.row_keys`."""
        if example.group is None:
            return example
        return Example(example.texts, example.group ^ hash_text(self.stream.name))

    def state(self) -> dict[str, Any]:
        # before its first row, a data set does not give the position it begins at
        rows = self.begun if self.unread else self.dataset.state_dict()
        return {"passes": self.passes, "counts": dict(self.counts), "rows": rows}

    @property
    def reader(self) -> str:
        """The worker and rank of this reader, for messages."""
        rank, ranks, worker, workers = self.share
        of_rank = f" of rank {rank}" if ranks > 1 else ""
        return f" of worker {worker}{of_rank}" if workers > 1 else of_rank

    def explain_no_row(self) -> str:
        reasons = ", ".join(f"{count} {why}" for why, count in self.counts.items()) or "0 read"
        return (
            f"data.train.{self.stream.name}: {self.stream.source.path}: a whole pass{self.reader} "
            f"has no row to train on ({reasons}); give more rows, fewer workers or other limits"
        )
