"""Tokenize texts into padded tensors."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

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

    The length is rounded up to `multiple`, where `max_length` leaves room for that.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    multiple: int = 1

    def __call__(self, texts: Sequence[str]) -> Tokens:
        tokens = dict(
            self.tokenizer(
                list(texts),
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
        )
        return self.widen(tokens, self.rounded(tokens["input_ids"].shape[1]))

    def rounded(self, length: int) -> int:
        """The token count that a text of `length` tokens is padded to, with no longer one beside.

        Above `max_length` the model may have no positions.
        """
        return max(length, min(-(-length // self.multiple) * self.multiple, self.max_length))

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
            list(texts), truncation=True, max_length=self.max_length
        )["input_ids"]
        return ids

    def uncut(self, texts: Sequence[str]) -> list[list[int]]:
        """All tokens of each text, also those after `max_length`."""
        ids: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"]
        return ids

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
        if "token_type_ids" in self.tokenizer.model_input_names:
            padding = self.tokenizer.pad_token_type_id or 0
            batch["token_type_ids"] = torch.where(mask.bool(), 0, padding)
        return batch

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
        return hashlib.sha256(named.encode()).hexdigest()[:16]
