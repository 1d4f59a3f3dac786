"""A model as mteb sees it: one encoder, cut to a width."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from mic.encoder.embedding_store import BoundedStore
from mic.encoder.encoder import Encoder
from mic.evaluation.evaluate import digest
from mic.evaluation.mteb.prompts import Prompts, prompt_of
from mic.nested import prefix, unit


class Subject(NamedTuple):
    """What is judged; `weights` is the hash of its weights."""

    name: str
    weights: str
    encoder: Encoder
    prompts: Prompts
    kept: BoundedStore


class AtWidth:
    """mteb's EncoderProtocol over embeddings that are kept: the first `dim` numbers, of length 1.

    What it is called holds all that makes the embeddings, so that mteb finds the results of no
    other width and no other checkpoint in their place.
    """

    def __init__(self, subject: Subject, dim: int) -> None:
        self.kept, self.prompts, self.dim = subject.kept, subject.prompts, dim
        self.mteb_model_meta = describe(subject, dim)

    def encode(
        self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **_: Any
    ) -> Float32[np.ndarray, "texts dim"]:
        """Embeddings of the texts of mteb's loader, in its order."""
        prompt = prompt_of(self.prompts, task_metadata, prompt_type)
        texts = [f"{prompt}{text}" for text in inputs.dataset["text"][:]]
        full = unit(torch.from_numpy(self.kept.embed(texts)))
        # scaled before the cut as well: as an exported model computes it, to the last bit
        found: np.ndarray = unit(prefix(full, self.dim)).numpy()
        return found

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines of all with all."""
        from mteb.similarity_functions import cos_sim

        found: Tensor = cos_sim(embeddings1, embeddings2)
        return found

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines row by row."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


def describe(subject: Subject, dim: int) -> Any:
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
        experiment["prompts"] = digest(subject.prompts)[:8]
    return ModelMeta.create_empty(
        {
            "name": f"mic/{subject.name}",
            "revision": subject.weights,
            "embed_dim": dim,
            "max_tokens": encoder.max_length,
            "n_parameters": sum(one.numel() for one in encoder.parameters()),
            "similarity_fn_name": ScoringFunction.COSINE,
            "framework": ["PyTorch"],
            "experiment_kwargs": experiment,
        }
    )


def encoder_key(encoder: Encoder, weights: str) -> str:
    """A name of all that makes full embeddings but the texts."""
    return digest(weights, encoder.pooling, encoder.max_length, encoder.width)[:32]
