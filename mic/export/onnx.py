"""Write the exported encoder as one ONNX graph: tokens in, token states and the embedding out."""

import importlib.util
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mic.encoder.encoder import Encoder
from mic.errors import InputError, RunError
from mic.export.folder import exported_model
from mic.export.parity import PROBES

NEEDED = ("onnx", "onnxscript", "onnxruntime")
FILE = "onnx/model.onnx"
LARGEST = 1e-4


def check_packages() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"--onnx: {', '.join(missing)} not installed; pip install 'mic-embeddings[onnx]'"
        )


class OnnxGraph(nn.Module):
    """A model whose inputs are positional tensors and whose embedding has length 1."""

    def __init__(self, encoder: Encoder, dim: int | None, names: list[str]) -> None:
        super().__init__()
        self.model = exported_model(encoder, dim)
        self.names = names

    def forward(self, *tokens: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model(dict(zip(self.names, tokens, strict=True)))
        return features["token_embeddings"], features["sentence_embedding"]


def write_onnx(folder: Path, encoder: Encoder, dim: int | None) -> float:
    """Write FILE, for any number of texts of any length, and compare it with the encoder.

    Outputs are `last_hidden_state` [batch, length, H] and `sentence_embedding` [batch, D] of length
    1. Returns the largest difference of any coordinate under onnxruntime.

    Raises RunError when it is more than rounding.
    """
    tokens = encoder.tokenize(PROBES[:3])
    graph = OnnxGraph(encoder, dim, list(tokens)).eval()
    file = folder / FILE
    file.parent.mkdir()
    axes = {name: {0: "batch", 1: "length"} for name in tokens}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                graph,
                tuple(tokens.values()),
                file,
                input_names=list(tokens),
                output_names=["last_hidden_state", "sentence_embedding"],
                dynamic_shapes=(tuple(axes.values()),),
                dynamo=True,
                verbose=False,
                external_data=False,
            )
        except RuntimeError as error:  # torch cannot trace every backbone
            kind = type(encoder.backbone).__name__
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise RunError(f"--onnx: {kind} has no ONNX graph: {reason}; leave it out") from error
    largest = largest_difference(file, encoder, dim)
    if not largest <= LARGEST:
        raise RunError(f"{FILE}: differs from the encoder by {largest:.1e}; nothing was exported")
    return largest


def largest_difference(file: Path, encoder: Encoder, dim: int | None) -> float:
    """The largest difference of any coordinate over texts of several batch sizes and lengths."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    worst = 0.0
    for texts in (PROBES[:1], PROBES[1:4], PROBES):
        tokens = {name: value.numpy() for name, value in encoder.tokenize(texts).items()}
        (embeddings,) = session.run(["sentence_embedding"], tokens)
        expected = encoder.encode(texts, dim=dim)
        worst = max(worst, float(np.abs(embeddings - expected).max()))
    return worst
