"""A batch in chunks gives the gradient of the whole batch, dropout, teacher and all."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from ranks import CONFIGS, SMALL
from sentences import answer, sentence
from torch import Tensor

from mic.config.loading import load
from mic.data.batch import Batch, Collate
from mic.data.datamodule import PairDataModule
from mic.data.indexed import Row
from mic.objective.gradcache import generator_state, replayed
from mic.objective.statistics import join
from mic.train.module import MICModule

NAMES = sorted(file.stem for file in CONFIGS.glob("*.yaml"))
HARD = ("objective.symmetric=true", "objective.teacher_margin=0.1", "teacher.kind=self")


def batch_of(module: MICModule, rows: int = 7) -> Batch:
    """Queries, positives and hard negatives; some rows share a text."""
    texts = [
        Row((sentence(n * 37) + " and a cat" * (n % 3), answer((n - n // 5) * 37), answer(n)))
        for n in range(rows)
    ]
    prepare = module.teacher.prepare if module.teacher else None
    return Collate(module.encoder.tokenize, prepare)(texts)


def build(tiny_config: Path, *overrides: str) -> MICModule:
    """A module in fp64 with dropout on; the objective's own weights are no identity."""
    torch.manual_seed(0)
    module = MICModule(load(tiny_config, *overrides)).double()
    with torch.no_grad():
        for parameter in module.objective.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def gradients(module: MICModule) -> dict[str, Tensor]:
    actual = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return actual


def plain(module: MICModule, batch: Batch, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients with the graphs of all chunks alive at once, in one backward pass."""
    torch.manual_seed(3)
    summary = join([module.summarise(chunk) for chunk in batch.chunks(size)])
    loss = module.finish(summary, None).total
    loss.backward()
    return loss.detach(), gradients(module)


def chunked(module: MICModule, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The same through `chunked_step`, as a Trainer would call it."""
    torch.manual_seed(3)
    loss = chunked_loss(module, batch)
    loss.backward()
    return loss.detach(), gradients(module)


def chunked_loss(module: MICModule, batch: Batch) -> Tensor:
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.trainer.strategy.connect(module)
    module.optimizers = lambda: torch.optim.SGD(module.parameters())
    return module.chunked_step(batch, 0)[1]


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    largest = max(value.norm() for value in expected.values())
    for name, value in expected.items():
        error = (actual[name] - value).norm() / value.norm().clamp_min(1e-3 * largest)
        assert error < tolerance, f"{name}: relative error {error:.1e}"


# chunks of 3, 3 and 1 rows; of a row each; all rows in one
SIZES = [*((3, name) for name in NAMES), (1, "mipic"), (7, "mic")]


@pytest.mark.parametrize(("size", "name"), SIZES)
def test_every_objective_has_the_loss_and_gradient_of_the_whole_batch(tiny_config, name, size):
    objective = load(CONFIGS / f"{name}.yaml", *SMALL)
    module = build(tiny_config, *SMALL, f"trainer.chunk_size={size}", *HARD)
    module.objective.__init__(objective.objective, module.encoder.hidden_width)
    module.double()
    batch = batch_of(module)
    loss, expected = plain(module, batch, size)
    actual, together = chunked(module, batch)
    assert actual.item() == pytest.approx(loss.item(), rel=1e-12)
    assert_same(together, expected, 1e-9)


@pytest.mark.parametrize("kind", ["self", "ema", "frozen"])
def test_it_is_so_with_masks_both_directions_and_any_teacher(tiny_config, kind):
    module = build(
        tiny_config,
        "trainer.chunk_size=3",
        "objective.distillation.weight=1",
        "objective.regression.weight=0.5",
        *HARD[:2],
        f"teacher.kind={kind}",
    )
    batch = batch_of(module)
    loss, expected = plain(module, batch, 3)
    actual, together = chunked(module, batch)
    assert actual.item() == pytest.approx(loss.item(), rel=1e-12)
    assert_same(together, expected, 1e-9)


def test_without_dropout_it_is_the_step_that_knows_no_chunks(tiny_config):
    module = build(tiny_config, "trainer.chunk_size=2").eval()
    batch = batch_of(module)
    loss, expected = plain(module, batch, batch.size)
    actual, together = chunked(module, batch)
    assert actual.item() == pytest.approx(loss.item(), rel=1e-10)
    assert_same(together, expected, 1e-8)


def test_dropout_differs_between_chunks_and_is_replayed(tiny_config):
    module = build(tiny_config, "trainer.chunk_size=2")
    batch = batch_of(module)
    without, _ = plain(module.eval(), batch, 2)
    loss, _ = chunked(module.train(), batch)
    assert (loss - without).abs() > 1e-6
    drawn = []
    for _ in range(2):
        state = generator_state()
        first = torch.rand(3)
        with replayed(state):
            assert torch.equal(torch.rand(3), first)
        drawn.append(torch.rand(3))
    assert not torch.equal(*drawn)


def fit(tiny_config: Path, *overrides: str, **options: object) -> dict[str, Tensor]:
    module = MICModule(load(tiny_config, "encoder.max_length=16", *overrides))
    for part in module.modules():  # the random stream of a chunk is not that of a batch
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    data = PairDataModule(
        module.config.data, module.encoder.tokenize, batch_size=module.config.trainer.batch_size
    )
    trainer = Trainer(
        max_steps=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        **options,
    )
    trainer.fit(module, data)
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_trainer_takes_the_same_steps_with_chunks(tiny_config, accumulate):
    options = {"precision": "64-true", "accumulate_grad_batches": accumulate}
    whole = fit(tiny_config, **options)
    parts = fit(tiny_config, "trainer.chunk_size=5", **options)
    untrained = fit(tiny_config, "trainer.learning_rate=1e-30", **options)
    moved = max((whole[name] - untrained[name]).abs().max() for name in whole)
    assert moved > 1e-4
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-6 * moved, msg=name)


def test_under_autocast_the_weights_have_a_gradient_and_it_is_that_of_the_batch(tiny_config):
    """A backward pass inside autocast multiplies in bf16 what the losses keep in fp32: 7 % off."""
    module = build(tiny_config, "trainer.chunk_size=3").float().eval()
    batch = batch_of(module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        summary = join([module.summarise(chunk) for chunk in batch.chunks(3)])
        loss = module.finish(summary, None).total
    loss.backward()
    expected = gradients(module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = chunked_loss(module, batch)
    again.backward()
    assert again.item() == loss.item()
    actual = gradients(module)
    assert actual.keys() == expected.keys()
    actual, expected = (
        torch.cat([g.flatten() for g in by_name.values()]) for by_name in (actual, expected)
    )
    assert (actual - expected).norm() / expected.norm() < 2**-8  # what bf16 itself rounds


def test_the_graph_of_one_chunk_is_alive_at_a_time(tiny_config):
    """The most activations saved at once do not grow with the number of chunks."""
    most = {}
    for rows in (4, 16):
        module = build(tiny_config, "trainer.chunk_size=2", "objective.gamma=0")
        most[rows] = peak_saved(lambda m=module, r=rows: chunked(m, batch_of(m, r)))
        whole = peak_saved(lambda m=module, r=rows: plain(m, batch_of(m, r), 2))
    assert most[16] < 1.5 * most[4]
    assert whole > 3 * most[16]


def peak_saved(run: Callable[[], object]) -> int:
    """The most bytes of activations that autograd held at once, parameters aside."""
    alive = peak = 0

    class Held:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal alive, peak
            self.tensor = tensor
            alive += tensor.nbytes
            peak = max(peak, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= self.tensor.nbytes

    def pack(tensor: Tensor) -> object:
        return tensor if isinstance(tensor, torch.nn.Parameter) else Held(tensor)

    with torch.autograd.graph.saved_tensors_hooks(
        pack, lambda held: held.tensor if isinstance(held, Held) else held
    ):
        run()
    return peak
