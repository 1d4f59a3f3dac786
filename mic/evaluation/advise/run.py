"""`mic advise`: encode once, search at every width and precision, and choose one."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mic.distributed.environment import accelerator
from mic.encoder.encoder import encoder_fingerprint
from mic.evaluation.advise.collection import read_collection
from mic.evaluation.advise.quality import measure_quality
from mic.evaluation.advise.selection import choose, kept_shares
from mic.evaluation.advise.speed import measure_speed
from mic.evaluation.advise.summary import AdviceReport, show_advice, write_advice
from mic.evaluation.encoding import embed_texts
from mic.evaluation.evaluate import json_hash
from mic.evaluation.models import (
    evaluation_widths,
    find_models,
    load_trained_encoder,
    trained_nested,
    weights_hash,
)
from mic.evaluation.results import refuse_file
from mic.files import cache_folder
from mic.nested import check_dims, with_full


class AdviceRequest(NamedTuple):
    """The options of `mic advise`; `mic advise --help` explains each."""

    model: str
    corpus: str
    queries: str
    qrels: str | None = None
    keep: float = 0.99
    dims: Sequence[int] = ()
    batch_size: int = 64
    to: Path | None = None
    trust_remote_code: bool = False
    command: str = "mic advise"


def advise(request: AdviceRequest) -> AdviceReport:
    """Measure every width and precision; print the advice, and write it if `to` is given.

    Raises InputError for bad input, before anything is encoded.
    """
    if request.to is not None:
        refuse_file(request.to)
    (model,) = find_models([request.model], request.trust_remote_code)
    collection = read_collection(request.corpus, request.queries, request.qrels)
    encoder, weights = load_trained_encoder(model), weights_hash(model.given)
    widths = check_dims(evaluation_widths(model, encoder.width, request.dims), encoder.width)
    dims = with_full(widths, encoder.width)
    texts = {"corpus": collection.documents, "queries": collection.queries}
    key = json_hash(encoder_fingerprint(encoder), texts)
    folder = cache_folder() / "advise" / key[:16]
    encoder.to(accelerator())
    embedded = embed_texts(
        encoder, texts, request.batch_size, folder, f"encoding with {model.name}"
    )
    scores = measure_quality(collection, embedded["corpus"], embedded["queries"], dims)
    shares = kept_shares(scores)
    report = AdviceReport(
        model,
        collection,
        request.qrels,
        request.keep,
        trained_nested(model, encoder.width),
        scores,
        shares,
        measure_speed(embedded["corpus"], embedded["queries"], list(shares), scores.full),
        choose(shares, scores.full, request.keep),
    )
    show_advice(report)
    if request.to is not None:
        files = {"corpus": request.corpus, "queries": request.queries, "qrels": request.qrels}
        write_advice(report, request.to, request.command, {"weights": weights, "files": files})
    shutil.rmtree(folder, ignore_errors=True)
    return report
