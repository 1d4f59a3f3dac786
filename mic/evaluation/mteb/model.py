"""Show an encoder, truncated to a width, to mteb as a model."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from mic.encoder.embedding_store import BoundedStore
from mic.encoder.encoder import Encoder
from mic.evaluation.evaluate import json_hash
from mic.evaluation.mteb.prompts import Prompts, prompt_of
from mic.nested import prefix, unit


class Subject(NamedTuple):
    """The model that is evaluated; `weights` is the hash of its weights."""

    name: str
    weights: str
    encoder: Encoder
    prompts: Prompts
    store: BoundedStore


class AtWidth:
    """mteb's EncoderProtocol over stored embeddings: their first `dim` dimensions, of length 1.

    Its `mteb_model_meta` names all that the embeddings depend on, so that mteb never reuses the
    results of another width or checkpoint.
    """

    def __init__(self, subject: Subject, dim: int) -> None:
        self.store, self.prompts, self.dim = subject.store, subject.prompts, dim
        self.mteb_model_meta = mteb_meta(subject, dim)

    def encode(
        self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **_: Any
    ) -> Float32[np.ndarray, "texts dim"]:
        """Embeddings of the texts of mteb's loader, in its order."""
        prompt = prompt_of(self.prompts, task_metadata, prompt_type)
        texts = [f"{prompt}{text}" for text in inputs.dataset["text"][:]]
        full = unit(torch.from_numpy(self.store.embed(texts)))
        # scaled before the cut as well: as an exported model computes it, to the last bit
        cut: np.ndarray = unit(prefix(full, self.dim)).numpy()
        return cut

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines of all pairs."""
        from mteb.similarity_functions import cos_sim

        cosines: Tensor = cos_sim(embeddings1, embeddings2)
        return cosines

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines row by row."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


def mteb_meta(subject: Subject, dim: int) -> Any:
    """mteb's ModelMeta: the run, the weights as its revision, the width as its experiment."""
    from mteb.models import ModelMeta
    from mteb.models.model_meta import ScoringFunction

    encoder = subject.encoder
    experiment: dict[str, Any] = {
        "dim": dim,
        "max_length": encoder.max_length,
        "pooling": encoder.pooling,
    }
    if any(subject.prompts.named.values()) or subject.prompts.default:
        experiment["prompts"] = json_hash(subject.prompts)[:8]
    return ModelMeta.create_empty(
        {
            "name": f"mic/{subject.name}",
            "revision": subject.weights,
            "embed_dim": dim,
            "max_tokens": encoder.max_length,
            "n_parameters": sum(parameter.numel() for parameter in encoder.parameters()),
            "similarity_fn_name": ScoringFunction.COSINE,
            "framework": ["PyTorch"],
            "experiment_kwargs": experiment,
        }
    )
