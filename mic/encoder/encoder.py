"""The encoder: a sentence-transformers model, the layers that training looks at, and its widths."""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mic.encoder import loading
from mic.encoder.tokenizer import Tokenize
from mic.errors import InputError, RunError
from mic.files import partial_path
from mic.nested import Encoded, check_dims, prefix, unit

LONGEST = 10**6  # tokens; a tokenizer without a limit has a larger one
Pooling = Literal["mean", "cls", "last"]
MODES = {"mean": "mean", "cls": "cls", "last": "lasttoken"}  # by sentence-transformers' names
EMBEDDING = "sentence_embedding"


class Encoder(nn.Module):
    """Texts to embeddings, with the hidden states of the layers that are asked for.

    `model` is the module chain that sentence-transformers reads. The embedding is its output before
    the Normalize modules at its end, cut to its `truncate_dim` where it has one: a cosine is the
    same, and the training terms see what the weights give. `max_length` counts tokens, and is the
    model's own unless given; None is no limit.

    Layer 0 is the embedding output and layer i the output of block i, as Hugging Face counts its
    `hidden_states`; hooks keep those that are asked for, and no others.
    """

    def __init__(self, model: Any, *, max_length: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.max_length = self.longest(max_length)
        self._hidden: dict[int, Tensor] = {}
        self._hooked: set[int] = set()
        self.register_load_state_dict_pre_hook(rename_old_weights)  # type: ignore[no-untyped-call]
        if isinstance(pooler := getattr(self.backbone, "pooler", None), nn.Module):
            pooler.requires_grad_(False)  # BERT's own, which no pooling of ours passes through
        if self.backbone is not None and self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.train(model[0].training)

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

        `pooling="auto"` and `max_length=None` take what sentence-transformers takes. `projection`
        adds a linear head of that width, begun as the identity (cut, or padded with zeros).

        Raises InputError when the weights are missing, unreachable, damaged or not those of
        `sha256`, and for a model that is not one dense vector a text.
        """
        folder = loading.locate(str(name), sha256, trust_remote_code)
        model = loading.load_model(folder, trust_remote_code)
        if pooling != "auto":
            set_pooling(model, pooling, folder)
        encoder = cls(model, max_length=max_length).eval()
        head = encoder.projection
        if projection is not None and head is None:
            add_head(model, encoder.width, projection)
        elif projection is not None and head is not None and head.out_features != projection:
            raise InputError(
                f"encoder.projection={projection}: {name} has a head of {head.out_features} already"
            )
        return encoder

    @property
    def backbone(self) -> PreTrainedModel | None:
        """The transformer; None for a model of static token embeddings."""
        transformer: PreTrainedModel | None = getattr(self.model[0], "model", None)
        return transformer

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; one of a static model is shown as those of transformers."""
        tokenizer = self.model[0].tokenizer
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            return tokenizer
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer)  # type: ignore[no-untyped-call]

    @property
    def pooling(self) -> str:
        """How tokens become one vector, for people: `mean`, `cls`, `lasttoken`, `mean+max` ..."""
        pooled = pooling_module(self.model)
        if pooled is None:
            return "mean"
        modes = pooled.pooling_mode
        return modes if isinstance(modes, str) else "+".join(modes)

    @property
    def prompts(self) -> dict[str, str]:
        """The model's prompts that are not empty, by their names."""
        return {name: prompt for name, prompt in self.model.prompts.items() if prompt}

    def named_prompt(self, name: str | None = None) -> str:
        """The model's prompt of a name; without one, that of all texts.

        Raises InputError for a name that the model does not have.
        """
        prompts: dict[str, str] = self.model.prompts
        name = self.model.default_prompt_name if name is None else name
        if name is None:
            return ""
        if name not in prompts:
            known = ", ".join(sorted(prompts)) or "none"
            raise InputError(f"prompt {name!r}: the model has no such prompt; it has: {known}")
        return prompts[name]

    @property
    def query_prompt(self) -> str:
        """The prompt of queries, as `SentenceTransformer.encode_query` takes it."""
        return self.named_prompt("query" if "query" in self.model.prompts else None)

    @property
    def document_prompt(self) -> str:
        """The prompt of documents, as `SentenceTransformer.encode_document` takes it."""
        names = ("document", "passage", "corpus")
        return self.named_prompt(next((name for name in names if name in self.model.prompts), None))

    @property
    def head(self) -> Any:
        """The Dense at the end of the model that is a linear map alone; None without one."""
        last = embedding_modules(self.model)[-1]
        if type(last).__name__ != "Dense" or not isinstance(last.activation_function, nn.Identity):
            return None
        plain = last.module_input_name == last.module_output_name == EMBEDDING
        return last if plain and not last.use_residual else None

    @property
    def projection(self) -> nn.Linear | None:
        """The linear head, where the model ends in one."""
        linear: nn.Linear | None = None if self.head is None else self.head.linear
        return linear

    @property
    def full_width(self) -> int:
        """The dimensions of the embedding before `truncate_dim` of the model cuts it."""
        for module in reversed(embedding_modules(self.model)):
            for name in ("get_embedding_dimension", "get_word_embedding_dimension"):
                if (method := getattr(module, name, None)) is not None:
                    return int(method())
        raise InputError("the model does not say how wide its embedding is")

    @property
    def width(self) -> int:
        """D, the dimensions of a full embedding."""
        return min(self.full_width, self.model.truncate_dim or self.full_width)

    @property
    def hidden_width(self) -> int:
        """The dimensions of a token's hidden state."""
        return int(self.model[0].get_embedding_dimension())

    def longest(self, tokens: int | None = None) -> int | None:
        """The tokens kept of a text where `tokens` are asked for: no more than the model takes."""
        own = own_length(self.model)
        return own if tokens is None else min(tokens, own or tokens)

    def headless(self) -> "Encoder":
        """The same model without its head; its embeddings are the head's input."""
        if self.head is None:
            return self
        model = copy.copy(self.model)  # shares every module
        model._modules = {
            name: module for name, module in self.model._modules.items() if module is not self.head
        }
        model.truncate_dim = None
        return Encoder(model, max_length=self.max_length)

    @property
    def tokenize(self) -> Tokenize:
        """Texts to token ids and mask; a callable without the weights, so that workers take it."""
        pooled = pooling_module(self.model)
        return Tokenize(
            self.tokenizer,
            self.max_length,
            special_tokens=self.backbone is not None,
            pools_prompt=pooled is None or pooled.include_prompt,
        )

    def forward(self, tokens: Mapping[str, Tensor], layers: Collection[int] = ()) -> Encoded:
        """Encode a tokenized batch; `layers` are the hidden states to return beside the embedding.

        Raises InputError for a layer that the backbone does not have.
        """
        self.watch(layers)
        mask = tokens["attention_mask"].bool()
        features: dict[str, Any] = dict(tokens)
        prompt_length = features.pop("prompt_length", None)
        if self.backbone is None:
            features = bags(tokens["input_ids"], mask)
        first, *others = embedding_modules(self.model)
        features = first(features)
        if (states := features.get("token_embeddings")) is not None:
            # pooled in at least fp32
            states = states.to(torch.promote_types(states.dtype, torch.float32))
            features["token_embeddings"] = states
        pooled = run_modules(others, features, prompt_length)[:, : self.width]
        hidden, self._hidden = self._hidden, {}
        if states is not None:
            hidden[self.depth] = states  # after the final norm, where the backbone has one
        return Encoded(pooled, {layer: hidden[layer] for layer in layers}, mask)

    @property
    def depth(self) -> int:
        """The number of blocks, which is also the index of the last layer; 0 without a backbone."""
        if self.backbone is None:
            return 0
        config = self.backbone.config
        return int(config.get_text_config().num_hidden_layers)

    def watch(self, layers: Collection[int]) -> None:
        """Keep these layers' outputs at every forward pass from now on.

        Before the backbone is compiled: afterwards it does not notice new hooks.

        Raises InputError for a layer that the backbone does not have.
        """
        # bound methods, not closures: a deep copy of the encoder keeps its own states
        for layer in set(layers) - self._hooked:
            if self.backbone is None:
                raise InputError(
                    f"layer {layer}: a model of static token embeddings has no layers; set "
                    "objective.align_layers=[output] and terms of other layers to weight 0"
                )
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

    def compile_backbone(self, **options: Any) -> None:
        """Compile the transformer, in place: wrapping it would rename the weights.

        `options` are those of torch.compile.
        """
        if self.backbone is not None:
            # sentence-transformers calls `forward` itself, which Module.compile leaves as it is
            self.backbone.forward = torch.compile(self.backbone.forward, **options)

    def blocks(self) -> nn.ModuleList:
        """The backbone's transformer blocks, lowest first."""
        for module in () if self.backbone is None else self.backbone.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.depth:
                return module
        raise InputError(
            f"{type(self.backbone).__name__}: found no list of its {self.depth} blocks; "
            "use objective.align_layers=[output] and encoder.freeze_layers=0"
        )

    def has_dropout(self) -> bool:
        """Whether a text's embedding differs from pass to pass in training."""
        training, device = self.training, self.device
        tokens = {name: value.to(device) for name, value in self.tokenize(["a text"]).items()}
        self.train()
        try:
            with torch.no_grad(), torch.random.fork_rng():
                first, second = (self(tokens).pooled for _ in range(2))
        finally:
            self.train(training)
        return not torch.equal(first, second)

    def freeze(self, embeddings: bool, layers: int) -> None:
        """Stop training the token embeddings and the `layers` lowest blocks."""
        if layers > self.depth:
            raise InputError(f"encoder.freeze_layers={layers}: the backbone has {self.depth}")
        if embeddings:
            module = getattr(self.backbone, "embeddings", None)
            if module is None:
                module = (
                    self.model[0] if self.backbone is None else self.backbone.get_input_embeddings()
                )
            module.requires_grad_(False)
        for block in self.blocks()[:layers] if layers else ():
            block.requires_grad_(False)

    @torch.no_grad()
    def embed(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> Float32[Tensor, "texts dim"]:
        """The full embeddings as the encoder gives them, on the CPU, in the texts' order.

        `prompt` stands before every text. Texts of like length share a batch. `progress` is called
        with each batch's size.
        """
        if isinstance(texts, str):
            raise TypeError("texts is one string; give a list of strings")
        if batch_size < 1:
            raise InputError(f"batch size {batch_size}: must be at least 1")
        tokenize = replace(self.tokenize, prompt=prompt)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        embeddings = torch.empty(len(texts), self.width)
        training = self.training
        self.eval()
        try:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                tokens = tokenize([texts[i] for i in rows])
                device = self.device
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
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 64,
        dim: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Float32[np.ndarray, "texts dim"]:
        """Embeddings cut to the first `dim` dimensions (all: None), then scaled to length 1.

        Before each text stands `prompt`, else the model's prompt of the name `prompt_name`, else
        the one that the model has for all texts, as `SentenceTransformer.encode` has it.

        Raises InputError when `dim` is above the encoder's width, or the model has no such prompt.
        """
        (dim,) = check_dims([self.width if dim is None else dim], self.width)
        if prompt is None:
            prompt = self.named_prompt(prompt_name)
        embeddings = self.embed(texts, prompt=prompt, batch_size=batch_size, progress=progress)
        rows: np.ndarray = unit(prefix(embeddings, dim)).numpy()
        return rows

    def save(self, folder: Path, max_length: int | None = None) -> None:
        """Write a sentence-transformers folder, whole or not at all; it must not exist yet.

        The saved model takes as many tokens of a text as the one that was loaded, or `max_length`.

        Raises RunError when the disk does not take it.
        """
        partial_folder = partial_path(folder)
        shutil.rmtree(partial_folder, ignore_errors=True)
        try:
            save_model(self.model, partial_folder, self.longest(max_length))
            partial_folder.rename(folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial_folder, ignore_errors=True)
            raise RunError(f"{folder}: the encoder could not be written: {error}") from error


def run_modules(
    modules: Sequence[Any], features: Mapping[str, Any], prompt_length: Int[Tensor, " batch"] | None
) -> Float[Tensor, "batch dim"]:
    """The embedding of a backbone's output; `prompt_length` are tokens that pooling leaves out."""
    if prompt_length is None:
        features = dict(features)
        for module in modules:
            features = module(features)
        embedding: Tensor = features[EMBEDDING]
        return embedding
    parts: list[Tensor] = []
    places: list[Tensor] = []
    for length in sorted(
        set(prompt_length.tolist())
    ):  # a pooling takes one length for all its rows
        rows = (prompt_length == length).nonzero()[:, 0]
        some = {name: value[rows] for name, value in features.items() if isinstance(value, Tensor)}
        parts.append(run_modules(modules, some | {"prompt_length": length}, None))
        places.append(rows)
    return torch.cat(parts)[torch.cat(places).argsort()]


def embedding_modules(model: Any) -> list[Any]:
    """The modules of a model without the Normalize modules at its end."""
    modules = list(model)
    while type(modules[-1]).__name__ == "Normalize":
        modules.pop()
    return modules


def pooling_module(model: Any) -> Any:
    """The module that pools tokens; None for a model without one."""
    return next((module for module in model if type(module).__name__ == "Pooling"), None)


def set_pooling(model: Any, pooling: Pooling, folder: Path) -> None:
    """Pool in another way than the model's files say."""
    if pooling not in get_args(Pooling):
        raise InputError(f"encoder.pooling={pooling}: give one of auto, {', '.join(MODES)}")
    module = pooling_module(model)
    if module is None or not isinstance(module.pooling_mode, str):
        raise InputError(
            f"encoder.pooling={pooling}: {folder} has no single pooling to set; leave it at auto"
        )
    module.pooling_mode = MODES[pooling]


def add_head(model: Any, width: int, projection: int) -> None:
    """Add a linear head before the Normalize modules at the end, begun as the identity.

    Training then starts from the given model. A Normalize follows the head.
    """
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    head = Dense(
        width,
        projection,
        bias=False,
        activation_function=nn.Identity(),
        init_weight=torch.eye(projection, width),
    )
    modules = [*embedding_modules(model), head, Normalize()]
    model._modules = {str(position): module for position, module in enumerate(modules)}
    model.truncate_dim = None


def save_model(model: Any, folder: Path, max_length: int | None) -> None:
    """Write the folder of a model that takes `max_length` tokens of a text; None: without limit."""
    before, tokenizer = model.max_seq_length, model[0].tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # else as the last call left it: servers read it from the file
        if max_length is None:
            backend.no_truncation()
        else:
            backend.enable_truncation(max_length)
            model.max_seq_length = max_length
    try:
        with loading.no_progress_bars():
            model.save_pretrained(str(folder), create_model_card=False)
    finally:
        if backend is not None:
            model.max_seq_length = before


def own_length(model: Any) -> int | None:
    """The tokens that a model takes of a text; None for one without a limit.

    RoBERTa and its kin count positions from behind the padding's: 514 of them hold 512 tokens.
    """
    lengths = [model.max_seq_length]
    backbone = getattr(model[0], "model", None)
    for module in () if backbone is None else backbone.modules():
        positions = getattr(module, "position_embeddings", None)
        first = getattr(module, "padding_idx", None)
        if isinstance(positions, nn.Embedding) and isinstance(first, int):
            lengths.append(positions.num_embeddings - first - 1)
    known = [int(length) for length in lengths if length is not None and length < LONGEST]
    return min(known, default=None)


def bags(ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The features of a static model: all tokens in a row, and where each text begins."""
    counts = mask.sum(1)
    return {"input_ids": ids[mask], "offsets": counts.cumsum(0) - counts}


def rename_old_weights(encoder: Encoder, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Read the names of weights as checkpoints before version 0.2 have them."""
    old = {f"{prefix}backbone.": f"{prefix}model.0.model."}
    if encoder.head is not None:
        name = next(
            name for name, module in encoder.model.named_children() if module is encoder.head
        )
        old[f"{prefix}projection."] = f"{prefix}model.{name}.linear."
    for key in [*state]:
        for before, after in old.items():
            if key.startswith(before):
                state[after + key.removeprefix(before)] = state.pop(key)


def encoder_fingerprint(encoder: Encoder) -> str:
    """A SHA-256 of all that decides an embedding: weights, modules, tokens and length.

    The folder that the encoder came from and what was done with it since make no difference.
    """
    shape: Any = None
    if encoder.backbone is not None:
        config = encoder.backbone.config
        shape = config.to_diff_dict() | {"_name_or_path": 0, "transformers_version": 0}
    modules = [
        [type(module).__name__, module.get_config_dict() if position else None]
        for position, module in enumerate(embedding_modules(encoder.model))
    ]
    settings = [shape, modules, encoder.max_length, encoder.width]
    settings.append(tokenizer_state(encoder.tokenizer))
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in chain(encoder.named_parameters(), encoder.named_buffers()):
        # no embedding passes through BERT's own pooler, which begins at random if the file has none
        if not name.startswith("model.0.model.pooler."):
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
