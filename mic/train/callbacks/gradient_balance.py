"""Log the share of the gradient norm that each term of the objective has."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mic.collectives import total, world_size
from mic.data.batch import Batch
from mic.metrics.moments import exact_device
from mic.nested import Encoded
from mic.objective.gradcache import generator_state, replayed
from mic.objective.objective import Loss
from mic.train.callbacks.throughput import Throughput
from mic.train.module import MICModule
from mic.train.step_metrics import record


class TermBalance(Callback):
    """Log balance/<term>, a term's share of the gradient norms, and balance/<term>/norm.

    Every `every` steps, from the first on, an extra forward pass is made before the step; the
    random state is restored after it, so that training is unchanged. Of a batch that is encoded in
    chunks the first chunk is taken. The time is left out of `throughput`.
    """

    def __init__(self, every: int, throughput: Throughput) -> None:
        self.every = every
        self.throughput = throughput

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, MICModule)
        first = batch_idx % trainer.accumulate_grad_batches == 0
        if not self.every or trainer.global_step % self.every or not first:
            return
        with self.throughput.paused():
            size = pl_module.config.trainer.chunk_size or batch.size
            norms = gradient_norms(pl_module, batch.chunks(size)[0])
            whole = sum(norms.values()) or 1.0
            record(
                trainer,
                {f"balance/{name}": norm / whole for name, norm in norms.items()}
                | {f"balance/{name}/norm": norm for name, norm in norms.items()},
            )


def gradient_norms(module: MICModule, batch: Batch) -> dict[str, float]:
    """The norm of each weighted term's gradient with respect to the states that all terms share.

    These are the hidden states, of all views, of the lowest layer that the objective reads and that
    learns; below it every term's gradient takes the same path. (With respect to activations, not to
    weights as in GradNorm, Chen et al. 2018: that costs a fraction.) On several ranks the norm is
    that of the joined batch.
    """
    eager = torch.compiler.set_stance("force_eager")  # no gradient inside a compiled graph
    # in autocast as the step itself
    autocast: Any = module.trainer.precision_plugin.forward_context()
    with torch.enable_grad(), replayed(generator_state()), eager:
        with autocast:
            views, loss = encoded_loss(module, batch)
        shared = shared_states(views)
        gradients = {
            name: torch.autograd.grad(term, shared, retain_graph=True, allow_unused=True)
            for name, term in loss.weighted.items()
            if term.requires_grad
        }
    squares = torch.stack([squared_norm(tensors, shared) for tensors in gradients.values()])
    norms = (total(squares).sqrt() / world_size()).tolist()
    return dict(zip(gradients, norms, strict=True))


def encoded_loss(module: MICModule, batch: Batch) -> tuple[list[Encoded], Loss]:
    """The batch's columns, encoded one by one: of columns that pass together only slices are
    known, on which nothing depends."""
    views = module.encode(batch, together=False)
    return views, module.finish(module.summarise_views(batch, views), batch.sizes)


def shared_states(views: Sequence[Encoded]) -> list[Tensor]:
    """The states of the lowest layer of all that learns; the embeddings, if none does."""
    layers = {layer for view in views for layer, x in view.hidden.items() if x.requires_grad}
    if not layers:
        return [view.pooled for view in views]
    return [view.hidden[min(layers)] for view in views if min(layers) in view.hidden]


def squared_norm(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    device = exact_device(like[0].device)
    squares = torch.zeros((), dtype=torch.double, device=device)
    for gradient in gradients:
        if gradient is not None:
            squares += gradient.to(device).double().square().sum()
    return squares
