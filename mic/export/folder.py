"""Write the exported folder: weights, tokenizer, and the files that say how to use them.

Its modules are the model's own, a Dense where there is a head, and Normalize. A fixed width is a
smaller Dense head, so that embeddings are cut first and normalised then; `truncate_dim` of
sentence-transformers cuts after Normalize, and the result is shorter than 1 until it is normalised
once more.
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mic.encoder.encoder import Encoder, embedding_modules, save_model
from mic.encoder.loading import MODULES, backbone_folder, read_json
from mic.files import write_text


def write_model(
    folder: Path,
    encoder: Encoder,
    dim: int | None,
    dims: tuple[int, ...],
    dtype: torch.dtype,
) -> None:
    """Write an encoder, cut to its first `dim` dimensions if given, its weights stored as `dtype`.

    `dims` are the nested widths that config.json names, for vLLM and other servers; a single one is
    not nested. Loaders compute with 32 bits, also with weights of 16 bits, unless they are asked
    for something else. The encoder has the stored weights afterwards.
    """
    model = exported_model(encoder, dim)
    model.to(dtype)
    save_model(model, folder, encoder.longest())
    model.float()
    file = backbone_folder(folder) / "config.json"
    config = read_json(file, {})
    if "model_type" in config:
        config |= {"dtype": "float32"}
        config.pop("torch_dtype", None)
        for key in ("is_matryoshka", "matryoshka_dimensions"):
            config.pop(key, None)
        if len(dims) > 1:
            config |= {"is_matryoshka": True, "matryoshka_dimensions": list(dims)}
        write_text(file, json.dumps(config, indent=2) + "\n")
    for weights in folder.rglob(
        "*.safetensors"
    ):  # unreadable for other users, as safetensors writes
        weights.chmod((folder / MODULES).stat().st_mode)


def exported_model(encoder: Encoder, dim: int | None) -> Any:
    """The model, its modules shared with the encoder: a cut head where asked for, and Normalize."""
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    modules = embedding_modules(encoder.model)
    if dim is not None and dim != encoder.width:
        head = cut_head(encoder, dim)
        if encoder.head is not None:
            modules.pop()
        dense = Dense(
            head.in_features,
            head.out_features,
            bias=head.bias is not None,
            activation_function=nn.Identity(),
        )
        dense.linear = head
        modules.append(dense)
    model = copy.copy(encoder.model)
    model._modules = {str(place): module for place, module in enumerate([*modules, Normalize()])}
    model.similarity_fn_name = "cosine"
    model.truncate_dim = dim or (encoder.width if encoder.width < encoder.full_width else None)
    return model


def cut_head(encoder: Encoder, dim: int) -> nn.Linear:
    """The linear head whose output is the first `dim` dimensions of the embedding.

    These are rows of the encoder's own head, else of the identity, which is exact.
    """
    projection = encoder.projection
    if projection is None:
        head = nn.Linear(encoder.full_width, dim, bias=False)
        nn.init.eye_(head.weight)
        return head
    head = nn.Linear(projection.in_features, dim, bias=projection.bias is not None)
    with torch.no_grad():
        head.weight.copy_(projection.weight[:dim])
        if projection.bias is not None:
            head.bias.copy_(projection.bias[:dim])
    return head


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
