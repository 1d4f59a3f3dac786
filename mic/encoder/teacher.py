"""The teachers of distillation, each a class with one `forward`, and the store of a cached one."""

import copy
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32
from torch import Tensor, nn

from mic.config.schema import TeacherConfig
from mic.console import bar
from mic.distributed.environment import accelerator
from mic.encoder.embedding_store import FORMAT, EmbeddingStore, EncodedBlock, StoreMeta, fill_store
from mic.encoder.encoder import Encoder, encoder_fingerprint
from mic.errors import InputError, RunError, check_choice
from mic.files import cache_folder

KINDS = ("none", "self", "ema", "frozen", "cached")
LARGEST_HALF = float(np.finfo(np.float16).max)
BLOCK_TEXTS, BLOCK_SECONDS = 1024, 30.0  # between two writes of a store, whichever is sooner
Prepared = dict[str, Tensor] | Tensor  # a column's texts for the teacher: tokens, or embeddings


class Teacher(nn.Module, ABC):
    """A model whose full embeddings a student learns from: no gradient, no dropout, at least fp32.

    `width` is the dimensions of an embedding, and need not be the student's. `prepare`, where there
    is one, turns a column's texts into the `prepared` of `forward`; it holds no weights, so that
    the collate function of data loader workers can call it.
    """

    prepare: Callable[[Sequence[str]], Prepared] | None = None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.train()

    def train(self, mode: bool = True) -> Any:  # noqa: ARG002  # Self, which beartype takes of whole classes only
        """Stay in eval mode, whatever mode the module that holds the teacher goes into."""
        return super().train(False)

    @torch.no_grad()
    def forward(
        self,
        tokens: Mapping[str, Tensor],
        prepared: Prepared | None,
        student: Float[Tensor, "batch dim"],
    ) -> Float[Tensor, "batch teacher_dim"]:
        """The teacher's embeddings of one column.

        `tokens` are the student's and `student` its embeddings of them; `prepared` is the result
        of `prepare` for the same texts.

        Raises TypeError when `prepared` is something else.
        """
        embeddings = self.embed(tokens, prepared, student)
        return embeddings.detach().to(torch.promote_types(embeddings.dtype, torch.float32))

    @abstractmethod
    def embed(
        self, tokens: Mapping[str, Tensor], prepared: Prepared | None, student: Tensor
    ) -> Tensor:
        """The result of `forward`, in the dtype in which the teacher computes it."""

    def step(self, student: Encoder) -> None:
        """Follow the student; to be called after every optimiser step."""


class SelfTeacher(Teacher):
    """The student's own full embedding teaches its prefixes."""

    def embed(
        self,
        tokens: Mapping[str, Tensor],  # noqa: ARG002
        prepared: Prepared | None,  # noqa: ARG002
        student: Tensor,
    ) -> Tensor:
        return student


class EMATeacher(Teacher):
    """The exponential moving average of the student's weights, begun as a copy of the student.

    After each optimiser step every parameter p_ema becomes decay * p_ema + (1 - decay) * p, and
    buffers are copied. Its weights are part of the state dict.
    """

    def __init__(self, student: Encoder, decay: float) -> None:
        super().__init__(student.width)
        self.decay = decay
        self.encoder = copy.deepcopy(student).eval().requires_grad_(False)

    def embed(
        self,
        tokens: Mapping[str, Tensor],
        prepared: Prepared | None,  # noqa: ARG002
        student: Tensor,  # noqa: ARG002
    ) -> Tensor:
        pooled: Tensor = self.encoder(tokens).pooled
        return pooled

    @torch.no_grad()
    def step(self, student: Encoder) -> None:
        averages: list[Tensor] = list(self.encoder.parameters())
        torch._foreach_lerp_(averages, list[Tensor](student.parameters()), 1 - self.decay)
        for buffer, latest in zip(self.encoder.buffers(), student.buffers(), strict=True):
            buffer.copy_(latest)


class FrozenTeacher(Teacher):
    """Another encoder with its own tokenizer, as it is.

    Its weights are read again by name, and so they are not part of the state dict.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder.width)
        self._held = (encoder.eval().requires_grad_(False),)  # in a tuple torch does not find it
        self.prepare = encoder.tokenize

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # what `to`, `cuda` and `float` do with submodules
        self._held[0]._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def embed(
        self,
        tokens: Mapping[str, Tensor],  # noqa: ARG002
        prepared: Prepared | None,
        student: Tensor,  # noqa: ARG002
    ) -> Tensor:
        if not isinstance(prepared, dict):
            raise wrong_prepared(prepared, "tokens")
        pooled: Tensor = self._held[0](prepared).pooled
        return pooled


class CachedTeacher(Teacher):
    """A frozen teacher whose embeddings are looked up, by `prepare`; no network is held."""

    def __init__(self, store: EmbeddingStore) -> None:
        super().__init__(store.width)
        self.prepare = store

    def embed(
        self,
        tokens: Mapping[str, Tensor],  # noqa: ARG002
        prepared: Prepared | None,
        student: Tensor,
    ) -> Tensor:
        if not isinstance(prepared, Tensor):
            raise wrong_prepared(prepared, "embeddings")
        return prepared.to(student.device)


def wrong_prepared(prepared: Any, expected: str) -> TypeError:
    """The error for a `prepared` that this teacher does not take."""
    return TypeError(
        f"prepared is {type(prepared).__name__}; give the {expected} that teacher.prepare(texts) "
        "makes of the column's texts"
    )


def build_teacher(
    config: TeacherConfig,
    student: Encoder,
    student_name: str,
    texts: Iterable[str] = (),
    max_length: int | None = None,
) -> Teacher | None:
    """The teacher that a config names; None for kind `none`.

    It keeps `max_length` tokens of a text, as the student does in training, unless the config says
    otherwise.
    `texts` are all those that a cached teacher will look up: the ones that its store does not hold
    are embedded, with an encoder that is freed afterwards.

    Raises InputError for a teacher that cannot be loaded, or a store of another teacher, and
    RunError for a store that cannot be filled.
    """
    check_choice("teacher.kind", config.kind, KINDS)
    if config.kind == "none":
        return None
    if config.kind == "self":
        return SelfTeacher(student.width)
    if config.kind == "ema":
        return EMATeacher(student, config.decay)
    encoder = load_teacher(config, config.name or student_name, max_length)
    if config.kind == "frozen":
        return FrozenTeacher(encoder)
    folder = Path(config.folder).expanduser() if config.folder else None
    encoder = encoder.to(accelerator())
    return CachedTeacher(fill_teacher_store(folder, encoder, texts, config.batch_size))


def load_teacher(config: TeacherConfig, name: str, max_length: int | None) -> Encoder:
    """The encoder of a frozen or cached teacher, with errors that name the teacher's keys."""
    try:
        return Encoder.from_pretrained(
            name,
            pooling=config.pooling,
            max_length=config.max_length or max_length,
            sha256=config.sha256,
            trust_remote_code=config.trust_remote_code,
        )
    except InputError as error:
        message = re.sub(r"\bencoder\.(sha256|pooling)\b", r"teacher.\1", str(error))
        raise InputError(f"teacher.name={name}: {message}") from error


def fill_teacher_store(
    folder: Path | None, encoder: Encoder, texts: Iterable[str], batch_size: int = 64
) -> EmbeddingStore:
    """A store of float16 with the encoder's embeddings of every one of `texts`.

    It is in `folder` or, for None, in the user's cache. Only the texts that are not there yet are
    encoded; a call that was interrupted goes on where it stopped. Needs no right to write when
    nothing is missing.

    Raises InputError for a folder of another teacher or of other files, and RunError for an
    embedding that float16 cannot hold, a full disk, or another process that is filling the folder.
    """
    if batch_size < 1:
        raise InputError(f"teacher.batch_size={batch_size}: must be at least 1")
    if isinstance(texts, str):
        raise TypeError("texts is one string; give a list of strings")
    meta = StoreMeta(encoder_fingerprint(encoder), encoder.width, "float16")
    if folder is None:
        # an older format lies beside it: nothing of it is read, nobody has to remove it
        folder = cache_folder() / f"teachers-{FORMAT}" / meta.fingerprint[:16]

    def encode(missing: list[str]) -> Iterator[EncodedBlock]:
        return encode_half(encoder, missing, batch_size)

    return fill_store(folder, meta, texts, encode, "set teacher.folder to another")


def encode_half(encoder: Encoder, texts: Sequence[str], batch_size: int) -> Iterator[EncodedBlock]:
    """The embeddings of texts as float16, in blocks, the longest texts first."""
    texts = sorted(texts, key=len, reverse=True)  # little padding, and memory runs out at once
    halves: list[Float16[np.ndarray, "batch dim"]] = []
    written, last = 0, time.monotonic()
    with bar("embedding every text once", len(texts)) as advance:
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            embeddings = encoder.embed(batch, batch_size=batch_size, progress=advance)
            halves.append(to_half(embeddings, batch))
            done, now = start + len(batch), time.monotonic()
            full = done - written >= BLOCK_TEXTS or now - last >= BLOCK_SECONDS
            if full or done == len(texts):
                yield EncodedBlock(texts[written:done], np.concatenate(halves))
                halves, written, last = [], done, now


def to_half(
    embeddings: Float32[Tensor, "texts dim"], texts: Sequence[str]
) -> Float16[np.ndarray, "texts dim"]:
    """Embeddings as float16, or a RunError that names a text whose embedding it cannot hold."""
    broken = ~(embeddings.abs() <= LARGEST_HALF).all(1)  # true for NaN, too
    if broken.any():
        row = int(broken.nonzero()[0])
        largest = embeddings[row].abs().max().item()
        raise RunError(
            f"teacher: its embedding of {texts[row][:60]!r} holds {largest:g}, which float16 "
            "cannot hold; take another teacher.name or teacher.pooling"
        )
    return np.asarray(embeddings.half())
