"""Write the exported folder: weights, tokenizer, and the files that say how to use them.

Its modules are Transformer, Pooling, Dense where there is a head, and Normalize. A fixed width is a
smaller Dense head, so that embeddings are cut first and normalised then; `truncate_dim` of
sentence-transformers cuts after Normalize, and the result is shorter than 1 until it is normalised
once more.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mic.encoder.encoder import Encoder
from mic.encoder.pretrained import read_json, write_folder, write_settings

PROMPTS = "config_sentence_transformers.json"
NORMALIZE = "sentence_transformers.models.Normalize"


def write_model(
    folder: Path,
    encoder: Encoder,
    dim: int | None,
    dims: tuple[int, ...],
    dtype: torch.dtype,
    prompts: dict[str, Any],
) -> None:
    """Write an encoder, cut to its first `dim` dimensions if given, its weights stored as `dtype`.

    `dims` are the nested widths that config.json names, for vLLM and other servers; a single one is
    not nested. Loaders compute with 32 bits, also with weights of 16 bits, unless they are asked
    for something else. The encoder has the stored weights afterwards.
    """
    head = cut_head(encoder, dim)
    encoder.to(dtype)
    write_folder(
        folder,
        encoder.backbone,
        encoder.tokenizer,
        encoder.pooling,
        encoder.max_length,
        None if head is None else head.to(dtype),
    )
    encoder.float()
    config = read_json(folder / "config.json", {})
    config |= {"dtype": "float32"}
    config.pop("torch_dtype", None)
    for key in ("is_matryoshka", "matryoshka_dimensions"):
        config.pop(key, None)
    if len(dims) > 1:
        config |= {"is_matryoshka": True, "matryoshka_dimensions": list(dims)}
    write_settings(folder / "config.json", config)
    modules = read_json(folder / "modules.json", [])
    last = len(modules)
    path = f"{last}_Normalize"
    (folder / path).mkdir()
    modules.append({"idx": last, "name": str(last), "path": path, "type": NORMALIZE})
    write_settings(folder / "modules.json", modules)
    write_settings(folder / path / "config.json", {})
    write_settings(folder / PROMPTS, usage_config(prompts, dim))
    for file in folder.rglob("*.safetensors"):  # safetensors makes them unreadable for other users
        file.chmod((folder / "config.json").stat().st_mode)


def cut_head(encoder: Encoder, dim: int | None) -> nn.Linear | None:
    """The linear head whose output is the first `dim` dimensions of the embedding.

    These are rows of the encoder's own head, else of the identity, which is exact.
    """
    projection = encoder.projection
    if dim is None or dim == encoder.width:
        return projection
    head = nn.Linear(
        encoder.hidden_width, dim, bias=projection is not None and projection.bias is not None
    )
    with torch.no_grad():
        if projection is None:
            nn.init.eye_(head.weight)
        else:
            head.weight.copy_(projection.weight[:dim])
        if projection is not None and projection.bias is not None:
            head.bias.copy_(projection.bias[:dim])
    return head


def usage_config(prompts: dict[str, Any], dim: int | None) -> dict[str, Any]:
    """The configuration that sentence-transformers reads: prompts, width and similarity."""
    return {
        "model_type": "SentenceTransformer",
        "__version__": {name: version(name) for name in ("transformers", "torch")},
        "prompts": prompts.get("prompts") or {},
        "default_prompt_name": prompts.get("default_prompt_name"),
        "similarity_fn_name": "cosine",
        **({} if dim is None else {"truncate_dim": dim}),
    }


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
