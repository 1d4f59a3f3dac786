"""The encoder: a Hugging Face backbone, a pooling and, where asked for, a linear head."""

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mic.encoder import pretrained
from mic.encoder.pooling import Pooling, pool
from mic.encoder.tokenizer import Tokenize
from mic.errors import InputError, RunError
from mic.files import partial_path
from mic.nested import Encoded, check_dims, prefix, unit

LONGEST = 512  # tokens, where neither the caller nor the model has a limit


class Encoder(nn.Module):
    """Texts to embeddings, with the hidden states of the layers that are asked for.

    Layer 0 is the embedding output and layer i the output of block i, as Hugging Face counts its
    `hidden_states`; hooks keep those that are asked for, and no others.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pooling: Pooling = "mean",
        max_length: int = LONGEST,
        projection: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.pooling: Pooling = pooling
        self.max_length = max_length
        self.projection = projection
        self._hidden: dict[int, Tensor] = {}
        self._hooked: set[int] = set()
        if isinstance(pooler := getattr(backbone, "pooler", None), nn.Module):
            pooler.requires_grad_(False)  # BERT's own, which no pooling of ours passes through
        self.train(backbone.training)  # in one mode with a backbone that comes in eval mode

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        pooling: Pooling | Literal["auto"] = "auto",
        max_length: int | None = None,
        projection: int | None = None,
        sha256: str | None = None,
        trust_remote_code: bool = False,
    ) -> "Encoder":
        """Load an encoder: a run directory or any folder, a Hub name, or `package:NAME`.

        `pooling="auto"` and `max_length=None` take what the model's sentence-transformers folder
        says, else the mean and at most 512 tokens. `projection` adds a linear head of that width,
        begun as the identity (cut, or padded with zeros).

        Raises InputError when the weights are missing, unreachable, damaged or not those of
        `sha256`.
        """
        folder = pretrained.locate(str(name), sha256, trust_remote_code)
        backbone = pretrained.read_backbone(folder, trust_remote_code)
        tokenizer = pretrained.read_tokenizer(folder, trust_remote_code)
        if pooling == "auto":
            pooling = pretrained.read_pooling(folder) or "mean"
        if max_length is None:
            max_length = pretrained.read_max_length(folder)
        longest = getattr(backbone.config, "max_position_embeddings", None) or LONGEST
        head = pretrained.read_projection(folder)
        if projection is not None and head is None:
            head = identity_head(backbone.config.hidden_size, projection)
        elif projection is not None and head is not None and head.out_features != projection:
            raise InputError(
                f"encoder.projection={projection}: {name} has a head of {head.out_features} already"
            )
        return cls(
            backbone,
            tokenizer,
            pooling=pooling,
            max_length=min(max_length or LONGEST, longest),
            projection=head,
        )

    @property
    def width(self) -> int:
        """D, the dimensions of a full embedding."""
        return self.projection.out_features if self.projection else self.hidden_width

    @property
    def hidden_width(self) -> int:
        """The dimensions of a token's hidden state."""
        return int(self.backbone.config.hidden_size)

    def headless(self) -> "Encoder":
        """The same backbone and pooling without the head; its embeddings are the head's input."""
        return Encoder(
            self.backbone, self.tokenizer, pooling=self.pooling, max_length=self.max_length
        )

    @property
    def tokenize(self) -> Tokenize:
        """Texts to token ids and mask; a callable without the weights, so that workers take it."""
        return Tokenize(self.tokenizer, self.max_length)

    def forward(self, tokens: Mapping[str, Tensor], layers: Collection[int] = ()) -> Encoded:
        """Encode a tokenized batch; `layers` are the hidden states to return beside the embedding.

        Raises InputError for a layer that the backbone does not have.
        """
        self.watch(layers)
        output = self.backbone(**tokens).last_hidden_state
        mask = tokens["attention_mask"].bool()
        pooled = pool(output, mask, self.pooling)
        if self.projection is not None:
            pooled = self.projection(pooled)
        hidden, self._hidden = self._hidden, {}
        hidden[self.depth] = output  # after the final norm, where the backbone has one
        return Encoded(pooled, {layer: hidden[layer] for layer in layers}, mask)

    @property
    def depth(self) -> int:
        """The number of blocks, which is also the index of the last layer."""
        return int(self.backbone.config.num_hidden_layers)

    def watch(self, layers: Collection[int]) -> None:
        """Keep these layers' outputs at every forward pass from now on.

        Before the backbone is compiled: afterwards it does not notice new hooks.

        Raises InputError for a layer that the backbone does not have.
        """
        # bound methods, not closures: a deep copy of the encoder keeps its own states
        for layer in set(layers) - self._hooked:
            if not 0 <= layer <= self.depth:
                raise InputError(
                    f"layer {layer}: the backbone has layers 0 (embeddings) to {self.depth}; "
                    "correct objective.align_layers"
                )
            if layer == 0:
                first = self.blocks()[0]
                first.register_forward_pre_hook(partial(self._keep_input), with_kwargs=True)
            elif layer < self.depth:
                self.blocks()[layer - 1].register_forward_hook(partial(self._keep_output, layer))
            self._hooked.add(layer)

    def _keep_input(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._hidden[0] = args[0] if args else kwargs["hidden_states"]

    def _keep_output(self, layer: int, _: nn.Module, _args: Any, output: Any) -> None:
        self._hidden[layer] = output[0] if isinstance(output, tuple) else output

    def blocks(self) -> nn.ModuleList:
        """The backbone's transformer blocks, lowest first."""
        for module in self.backbone.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.depth:
                return module
        raise InputError(
            f"{type(self.backbone).__name__}: found no list of its {self.depth} blocks; "
            "use objective.align_layers=[output] and encoder.freeze_layers=0"
        )

    def freeze(self, embeddings: bool, layers: int) -> None:
        """Stop training the token embeddings and the `layers` lowest blocks."""
        if layers > self.depth:
            raise InputError(f"encoder.freeze_layers={layers}: the backbone has {self.depth}")
        if embeddings:
            module = getattr(self.backbone, "embeddings", None)
            module = module if module is not None else self.backbone.get_input_embeddings()
            module.requires_grad_(False)
        for block in self.blocks()[:layers] if layers else ():
            block.requires_grad_(False)

    @torch.no_grad()
    def embed(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> Float32[Tensor, "texts dim"]:
        """The full embeddings as the encoder gives them, on the CPU, in the texts' order.

        Texts of like length share a batch. `progress` is called with each batch's size.
        """
        if isinstance(texts, str):
            raise TypeError("texts is one string; give a list of strings")
        if batch_size < 1:
            raise InputError(f"batch size {batch_size}: must be at least 1")
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        embeddings = torch.empty(len(texts), self.width)
        training = self.training
        self.eval()
        try:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                tokens = self.tokenize([texts[i] for i in rows])
                device = self.backbone.device
                encoded = self({name: value.to(device) for name, value in tokens.items()})
                embeddings[rows] = encoded.pooled.float().cpu()
                if progress is not None:
                    progress(len(rows))
        finally:
            self.train(training)
        return embeddings

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 64,
        dim: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Float32[np.ndarray, "texts dim"]:
        """Embeddings cut to the first `dim` dimensions (all: None), then scaled to length 1.

        Raises ValueError when `dim` is above the encoder's width.
        """
        (dim,) = check_dims([self.width if dim is None else dim], self.width)
        embeddings = self.embed(texts, batch_size=batch_size, progress=progress)
        rows: np.ndarray = unit(prefix(embeddings, dim)).numpy()
        return rows

    def save(self, folder: Path) -> None:
        """Write a sentence-transformers folder, whole or not at all; it must not exist yet.

        Raises RunError when the disk does not take it.
        """
        partial_folder = partial_path(folder)
        shutil.rmtree(partial_folder, ignore_errors=True)
        try:
            pretrained.write_folder(
                partial_folder,
                self.backbone,
                self.tokenizer,
                self.pooling,
                self.max_length,
                self.projection,
            )
            partial_folder.rename(folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial_folder, ignore_errors=True)
            raise RunError(f"{folder}: the encoder could not be written: {error}") from error


def identity_head(width: int, projection: int) -> nn.Linear:
    """A linear head that begins as the identity, so that training starts from the given model."""
    head = nn.Linear(width, projection, bias=False)
    nn.init.eye_(head.weight)
    return head


def encoder_fingerprint(encoder: Encoder) -> str:
    """A SHA-256 of all that decides an embedding: weights, architecture, pooling and tokens.

    The folder that the encoder came from and what was done with it since make no difference.
    """
    shape = encoder.backbone.config.to_diff_dict() | {"_name_or_path": 0, "transformers_version": 0}
    settings = [shape, encoder.pooling, encoder.max_length, tokenizer_state(encoder.tokenizer)]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in chain(encoder.named_parameters(), encoder.named_buffers()):
        # no embedding passes through BERT's own pooler, which begins at random if the file has none
        if not name.startswith("backbone.pooler."):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """All that decides a tokenizer's output, as JSON."""
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is None:
        state = {"vocabulary": tokenizer.get_vocab(), "special": tokenizer.special_tokens_map}
    else:
        state = json.loads(backend.to_str()) | {"truncation": 0, "padding": 0}  # of the last call
    return [tokenizer.pad_token_id, tokenizer.padding_side, tokenizer.truncation_side, state]
