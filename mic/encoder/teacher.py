"""Teachers that a student learns from, behind one call: a branch of a teacher is a class here."""

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mic.config.schema import TeacherConfig
from mic.distributed.environment import accelerator
from mic.encoder.embedding_store import TeacherCache, fill
from mic.encoder.encoder import Encoder
from mic.errors import InputError, check_choice

KINDS = ("none", "self", "ema", "frozen", "cached")
Prepared = dict[str, Tensor] | Tensor  # a column's texts for the teacher: tokens, or embeddings


class Teacher(nn.Module, ABC):
    """What every teacher does: full embeddings without gradient or dropout, at least in fp32.

    `width` is the numbers in an embedding, and need not be the student's. `prepare`, where there
    is one, turns a column's texts into what `forward` wants as `prepared`; it holds no weights, so
    that the collate function of data loader workers can call it.
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

        `tokens` are the student's and `student` its embeddings of them; `prepared` is what
        `prepare` made of the same texts.

        Raises TypeError when `prepared` is not that.
        """
        found = self.embed(tokens, prepared, student)
        return found.detach().to(torch.promote_types(found.dtype, torch.float32))

    @abstractmethod
    def embed(
        self, tokens: Mapping[str, Tensor], prepared: Prepared | None, student: Tensor
    ) -> Tensor:
        """What `forward` gives, as the teacher computes it."""

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
        found: Tensor = self.encoder(tokens).pooled
        return found

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
            raise mistaken(prepared, "tokens")
        found: Tensor = self._held[0](prepared).pooled
        return found


class CachedTeacher(Teacher):
    """A frozen teacher whose embeddings are looked up, by `prepare`; no network is held."""

    def __init__(self, cache: TeacherCache) -> None:
        super().__init__(cache.width)
        self.prepare = cache

    def embed(
        self,
        tokens: Mapping[str, Tensor],  # noqa: ARG002
        prepared: Prepared | None,
        student: Tensor,
    ) -> Tensor:
        if not isinstance(prepared, Tensor):
            raise mistaken(prepared, "embeddings")
        return prepared.to(student.device)


def mistaken(prepared: Any, expected: str) -> TypeError:
    return TypeError(
        f"prepared is {type(prepared).__name__}; give the {expected} that teacher.prepare(texts) "
        "makes of the column's texts"
    )


def build_teacher(
    config: TeacherConfig, student: Encoder, student_name: str, texts: Iterable[str] = ()
) -> Teacher | None:
    """The teacher that a config asks for; None for kind `none`.

    `texts` are all those that a cached teacher will be asked for: the ones not embedded yet are,
    with an encoder that is let go of afterwards.

    Raises InputError for a teacher that cannot be loaded, or a cache that is another teacher's, and
    RunError for a cache that cannot be filled.
    """
    check_choice("teacher.kind", config.kind, KINDS)
    if config.kind == "none":
        return None
    if config.kind == "self":
        return SelfTeacher(student.width)
    if config.kind == "ema":
        return EMATeacher(student, config.decay)
    encoder = load_teacher(config, config.name or student_name, student.max_length)
    if config.kind == "frozen":
        return FrozenTeacher(encoder)
    folder = Path(config.folder).expanduser() if config.folder else None
    return CachedTeacher(fill(folder, encoder.to(accelerator()), texts, config.batch_size))


def load_teacher(config: TeacherConfig, name: str, max_length: int) -> Encoder:
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
        said = re.sub(r"\bencoder\.(sha256|pooling)\b", r"teacher.\1", str(error))
        raise InputError(f"teacher.name={name}: {said}") from error
