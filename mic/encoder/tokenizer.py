"""Tokenize texts into padded tensors."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32
from torch import Tensor
from torch.nn.functional import pad
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

Tokens = dict[str, Tensor]


@dataclass(frozen=True)
class Tokenize:
    """Texts to tensors [texts, length], cut to `max_length` tokens and padded to the longest.

    The length is rounded up to `multiple`, where `max_length` leaves room for that. `max_length` is
    None where nothing is cut; `special_tokens` are those that mark a text's beginning and end.
    `prompt` stands before each text; where the model's pooling leaves it out (`pools_prompt` is
    false), the tensor `prompt_length` [texts] says how many tokens it has.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int | None
    multiple: int = 1
    special_tokens: bool = True
    prompt: str = ""
    pools_prompt: bool = True

    def __call__(self, texts: Sequence[str]) -> Tokens:
        if not self.special_tokens:  # a text may have no token
            return self.batch([np.array(ids, np.int32) for ids in self.ids(texts)])
        tokens = dict(
            self.tokenizer(
                self.prompted(texts), padding=True, return_tensors="pt", **self.truncation
            )
        )
        widened = self.widen(tokens, self.rounded(tokens["input_ids"].shape[1]))
        return self.with_prompt_length(widened)

    def prompted(self, texts: Sequence[str]) -> list[str]:
        return [self.prompt + text for text in texts]

    def with_prompt_length(self, tokens: Tokens) -> Tokens:
        if self.pools_prompt or not self.prompt:
            return tokens
        return tokens | {
            "prompt_length": torch.full((len(tokens["input_ids"]),), self.prompt_length)
        }

    @cached_property
    def prompt_length(self) -> int:
        """The tokens of the prompt, a mark at the end of every text not counted."""
        (ids,) = replace(self, prompt="").ids([self.prompt])
        return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)

    @property
    def truncation(self) -> dict[str, Any]:
        """The tokenizer's options that cut a text."""
        if self.max_length is None:
            return {"truncation": False}
        return {"truncation": True, "max_length": self.max_length}

    def rounded(self, length: int) -> int:
        """The token count that a text of `length` tokens is padded to, with no longer one beside.

        Above `max_length` the model may have no positions.
        """
        rounded = -(-length // self.multiple) * self.multiple
        return rounded if self.max_length is None else max(length, min(rounded, self.max_length))

    def widen(self, tokens: Mapping[str, Tensor], width: int) -> Tokens:
        """The tokens padded to `width`, on the tokenizer's side."""
        fills = {
            "input_ids": self.tokenizer.pad_token_id,
            "token_type_ids": self.tokenizer.pad_token_type_id,
        }
        left = self.tokenizer.padding_side == "left"
        return {
            name: pad(value, (missing, 0) if left else (0, missing), value=fills.get(name) or 0)
            for name, value in tokens.items()
            for missing in [width - value.shape[1]]
        }

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, not padded."""
        ids: list[list[int]] = self.tokenizer(
            self.prompted(texts),
            add_special_tokens=self.special_tokens,
            return_attention_mask=False,
            verbose=False,
            **self.truncation,
        )["input_ids"]
        return ids

    def uncut(self, texts: Sequence[str]) -> list[list[int]]:
        """All tokens of each text, also those after `max_length`."""
        return replace(self, max_length=None).ids(texts)

    def batch(self, rows: Sequence[Int32[np.ndarray, " _"]]) -> Tokens:
        """The padded tensors of texts whose tokens are given, equal to a call with the texts."""
        width = self.rounded(max(map(len, rows)))
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        left = self.tokenizer.padding_side == "left"
        for row, tokens in enumerate(rows):
            place = slice(width - len(tokens), None) if left else slice(len(tokens))
            ids[row, place] = torch.from_numpy(tokens.astype(np.int64))
            mask[row, place] = 1
        batch = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self.tokenizer.model_input_names and self.special_tokens:
            padding = self.tokenizer.pad_token_type_id or 0
            batch["token_type_ids"] = torch.where(mask.bool(), 0, padding)
        return self.with_prompt_length(batch)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of all that decides the tokens of a text."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            state = json.loads(backend.to_str())
            # as the last call left them: they do not change the tokens
            state.update(padding=None, truncation=None)
        else:
            state = sorted(self.tokenizer.get_vocab().items())
        named = json.dumps([type(self.tokenizer).__name__, state, self.max_length])
        if not self.special_tokens:
            named += " bare"
        if self.prompt:
            named += f" {self.prompt!r}"
        return hashlib.sha256(named.encode()).hexdigest()[:16]
