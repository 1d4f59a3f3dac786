"""`mic advise`: read, encode once, search at every width and precision, choose."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mic.distributed.environment import accelerator
from mic.evaluation.advise.collection import read_collection
from mic.evaluation.advise.quality import measure
from mic.evaluation.advise.selection import choose, kept_shares
from mic.evaluation.advise.speed import measure_speed
from mic.evaluation.advise.summary import show, write
from mic.evaluation.advise.words import Report
from mic.evaluation.encoding import embed_texts
from mic.evaluation.evaluate import digest
from mic.evaluation.models import find_models, trained, weights_hash, widths
from mic.evaluation.run import refuse_file
from mic.evaluation.truncation import trained_nested
from mic.files import cache_folder
from mic.nested import check_dims, with_full


class Wanted(NamedTuple):
    """What to look at, and how; `mic advise --help` says what each means."""

    model: str
    corpus: str
    queries: str
    qrels: str | None = None
    keep: float = 0.99
    dims: Sequence[int] = ()
    batch_size: int = 64
    to: Path | None = None
    command: str = "mic advise"


def advise(wanted: Wanted) -> Report:
    """Measure, print and perhaps write an advice.

    Raises InputError for bad input, before anything is encoded.
    """
    if wanted.to is not None:
        refuse_file(wanted.to)
    (model,) = find_models([wanted.model])
    collection = read_collection(wanted.corpus, wanted.queries, wanted.qrels)
    encoder, weights = trained(model), weights_hash(model.given)
    asked = check_dims(widths(model, encoder.width, wanted.dims), encoder.width)
    dims = with_full(asked, encoder.width)
    texts = {"corpus": collection.documents, "queries": collection.queries}
    of = digest(weights, encoder.pooling, encoder.max_length, encoder.width, texts)
    folder = cache_folder() / "advise" / of[:16]
    encoder.to(accelerator())
    embedded = embed_texts(encoder, texts, wanted.batch_size, folder, f"encoding with {model.name}")
    found = measure(collection, embedded["corpus"], embedded["queries"], dims)
    kept = kept_shares(found)
    report = Report(
        model,
        collection,
        wanted.qrels,
        wanted.keep,
        trained_nested(model, encoder.width),
        found,
        kept,
        measure_speed(embedded["corpus"], embedded["queries"], list(kept), found.full),
        choose(kept, found.full, wanted.keep),
    )
    show(report)
    if wanted.to is not None:
        files = {"corpus": wanted.corpus, "queries": wanted.queries, "qrels": wanted.qrels}
        write(report, wanted.to, wanted.command, {"weights": weights, "files": files})
    shutil.rmtree(folder, ignore_errors=True)
    return report
