"""What the objective costs on given hidden states, beside its products and the literal loops."""

from collections.abc import Sequence

import torch
from timing import agree, milliseconds, publish, ratio, seconds, table
from torch import Tensor
from torch.nn import functional

from mic.config.schema import ObjectiveConfig
from mic.nested import Encoded
from mic.objective.objective import Objective

BATCH, LENGTH, WIDTH = 64, 32, 768
DIMS = (16, 32, 64, 128, 256, 512, 768)
LAYERS, VIEWS = (4, 6, 8), 2
THRESHOLD, VARIANCE_WEIGHT, GAMMA, TEMPERATURE, SHARPNESS = 0.1, 0.1, 0.1, 0.05, 2.0
ROUNDS = 15


def batch() -> list[Encoded]:
    """Two views of random hidden states, 8 to 32 tokens each."""
    torch.manual_seed(0)
    views = []
    for _ in range(VIEWS):
        mask = torch.arange(LENGTH) < torch.randint(8, LENGTH + 1, (BATCH, 1))
        hidden = {
            layer: (0.5 * torch.randn(BATCH, LENGTH, WIDTH)).requires_grad_() for layer in LAYERS
        }
        views.append(Encoded(torch.randn(BATCH, WIDTH).requires_grad_(), hidden, mask))
    return views


def leaves(views: Sequence[Encoded]) -> list[Tensor]:
    return [x for view in views for x in (view.pooled, *view.hidden.values())]


def step(loss: Tensor, views: Sequence[Encoded]) -> None:
    torch.autograd.grad(loss, leaves(views))


def literal(views: Sequence[Encoded]) -> Tensor:
    """The objective as its formulas read: a loop over layers, a loop over widths."""
    contrast = torch.stack([infonce(views[0].pooled, views[1].pooled, d) for d in DIMS]).mean()
    terms = [
        collapse(view.hidden[layer], view.mask, d) + isotropy(view.hidden[layer], view.mask, d)
        for view in views
        for layer in LAYERS
        for d in DIMS
    ]
    return contrast + GAMMA * torch.stack(terms).mean()


def infonce(queries: Tensor, keys: Tensor, d: int) -> Tensor:
    scores = functional.normalize(queries[:, :d]) @ functional.normalize(keys[:, :d]).T
    return functional.cross_entropy(scores / TEMPERATURE, torch.arange(len(scores)))


def collapse(hidden: Tensor, mask: Tensor, d: int) -> Tensor | float:
    if d == WIDTH:
        return 0.0
    prefix, prefix_deviations = standardised(hidden[..., :d], mask)
    residual, residual_deviations = standardised(hidden[..., d:], mask)
    weights = 1 / mask.sum(1) / len(hidden)
    weighted = (prefix * weights[:, None, None]).flatten(0, 1)
    correlation = weighted.T @ residual.flatten(0, 1)
    penalty = (correlation.abs() - THRESHOLD).relu().square().mean()
    variance = (1 - prefix_deviations.mean()).relu() + (1 - residual_deviations.mean()).relu() / 2
    return penalty + VARIANCE_WEIGHT * variance


def standardised(hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    valid, counts = mask[:, :, None], mask.sum(1)[:, None]
    mean = (hidden * valid).sum(1) / counts
    centred = (hidden - mean[:, None]) * valid
    deviations = (centred.square().sum(1) / counts + 1e-10).sqrt()
    return centred / deviations[:, None], deviations


def isotropy(hidden: Tensor, mask: Tensor, d: int) -> Tensor:
    rows = (hidden[..., :d] * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    variances = rows.var(0, correction=0)
    cv = variances.std(correction=0) / (variances.mean() + 1e-12)
    unit = functional.normalize(rows)
    potentials = torch.exp(-2 * SHARPNESS * (1 - unit @ unit.T))
    off = potentials.sum() - potentials.diagonal().sum()
    return (cv + torch.log(off / (BATCH * (BATCH - 1)) + 1e-12)) / 2


def products(views: Sequence[Encoded], valid_only: bool) -> None:
    """The matrix products alone: nothing that uses these losses takes fewer of them."""
    score(views[0].pooled.detach(), views[1].pooled.detach())
    for view in views:
        for hidden in view.hidden.values():
            tokens = hidden.detach()
            rows = tokens.view(-1, WIDTH)[: int(view.mask.sum())] if valid_only else tokens
            rows = rows.reshape(-1, WIDTH)
            correlation = rows.T @ rows
            torch.mm(rows, correlation)
            score(tokens[:, 0], tokens[:, 0])


def score(a: Tensor, b: Tensor) -> None:
    """B x B scores and the gradients of both sides."""
    scores = a @ b.T
    torch.mm(scores, b)
    torch.mm(scores.T, a)


def main() -> None:
    torch.set_num_threads(1)
    views = batch()
    ours = Objective(
        ObjectiveConfig(
            dims=list(DIMS), align_layers=list(LAYERS), gamma=GAMMA, threshold=THRESHOLD
        )
    )
    value, expected = ours(views, step=0).total, literal(views)
    agree(value.item(), expected.item())
    gradients = [torch.autograd.grad(x, leaves(views)) for x in (value, expected)]
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
    times = seconds(
        {
            "mic.Objective": lambda: step(ours(views, step=0).total, views),
            "literal loops": lambda: step(literal(views), views),
            "products, padding too": lambda: products(views, valid_only=False),
            "products, valid tokens": lambda: products(views, valid_only=True),
        },
        ROUNDS,
    )
    mine = times["mic.Objective"]
    rows = [[name, milliseconds(t), ratio(t, mine), ratio(mine, t)] for name, t in times.items()]
    tokens = sum(int(view.mask.sum()) for view in views)
    publish(
        "objective_cost",
        "The objective on given hidden states, forward and backward",
        [
            f"fp32, D = {WIDTH}, widths {list(DIMS)}, {len(LAYERS)} layers, {VIEWS} views, "
            f"B = {BATCH} sequences of 8 to {LENGTH} tokens ({tokens} of {VIEWS * BATCH * LENGTH} "
            "places valid). All ways give one value (1e-4) and one gradient. The products: for SCR "
            "one forward and one backward per layer and view (D x D x tokens), for InfoNCE and "
            "SIR's uniformity one B x B forward and two backward.",
            table(["", "ms", "its time / ours", "ours / its time"], rows),
        ],
        ROUNDS,
    )


if __name__ == "__main__":
    main()
