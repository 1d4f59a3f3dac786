"""The LightningModule: checkpoints without pickle, decay groups, a loss that is no number."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from mic.config.loading import load
from mic.data.batch import Batch
from mic.data.datamodule import PairDataModule
from mic.errors import InputError, RunError
from mic.train.module import MICModule
from mic.train.optimizer import decay_groups


@pytest.fixture
def module(tiny_config: Path) -> MICModule:
    return MICModule(load(tiny_config))


def fitted(module: MICModule, **options: object) -> Trainer:
    """A Lightning Trainer used by hand, as in a notebook, after it has trained the module."""
    settings = module.config.trainer
    data = PairDataModule(
        module.config.data, module.encoder.tokenize, batch_size=settings.batch_size
    )
    trainer = Trainer(
        max_steps=settings.max_steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        **options,
    )
    trainer.fit(module, data)
    return trainer


def test_dropout_makes_the_two_views_of_a_sentence_different(module):
    tokens = module.encoder.tokenize(["the cat sees a house", "a dog likes the river"])
    first, second = (module.encoder(tokens).pooled for _ in range(2))
    assert (first - second).abs().max() > 1e-3
    module.eval()
    torch.testing.assert_close(module.encoder(tokens).pooled, module.encoder(tokens).pooled)


def test_columns_of_one_length_take_one_forward_pass_and_give_the_same(tiny_config, monkeypatch):
    module = MICModule(load(tiny_config)).double().eval()
    passes = []

    def count(_: torch.nn.Module, given: tuple[dict[str, torch.Tensor]]) -> None:
        passes.append(len(given[0]["input_ids"]))

    module.encoder.register_forward_pre_hook(count)
    texts = ["the cat sees a house", "a dog likes the river"], ["a dog and a cat", "the bird"]
    equal = [module.encoder.tokenize(column) for column in texts]
    assert equal[0]["input_ids"].shape == equal[1]["input_ids"].shape
    together = module.encode(Batch(equal))
    assert passes == [4]
    unequal = [equal[0], module.encoder.tokenize.widen(equal[1], 9)]
    for view, other in zip(together, module.encode(Batch(unequal)), strict=True):
        assert view.hidden.keys() == other.hidden.keys() == {1, 2}
        torch.testing.assert_close(view.pooled, other.pooled, rtol=1e-10, atol=1e-10)
        for layer, states in view.hidden.items():
            width = view.mask.shape[1]
            unpadded = other.hidden[layer][:, :width][view.mask]
            torch.testing.assert_close(states[view.mask], unpadded, rtol=1e-10, atol=1e-10)
    assert passes == [4, 2, 2]


def test_a_checkpoint_of_a_plain_lightning_run_loads_without_unpickling(module, tmp_path):
    file = tmp_path / "last.ckpt"
    fitted(module).save_checkpoint(file)
    torch.load(file, weights_only=True)
    restored = MICModule.load_from_checkpoint(file, weights_only=True)
    assert restored.config == module.config
    assert restored.state_dict().keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(restored.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_training_moves_only_what_is_not_frozen(tiny_config):
    module = MICModule(
        load(tiny_config, "encoder.freeze_embeddings=true", "encoder.freeze_layers=1")
    )
    before = {name: value.clone() for name, value in module.encoder.named_parameters()}
    fitted(module)
    moved = {
        name.split(".layer.")[-1].split(".")[0] if ".layer." in name else name.split(".")[1]
        for name, value in module.encoder.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert moved == {"1", "2"}  # blocks; neither embeddings, nor block 0, nor BERT's pooler


def test_every_trained_parameter_stands_in_one_group_and_vectors_do_not_decay(module):
    matrices, vectors = decay_groups(module, module.config.trainer)
    trained = [p for p in module.parameters() if p.requires_grad]
    assert {id(p) for p in [*matrices["params"], *vectors["params"]]} == {id(p) for p in trained}
    assert len(matrices["params"]) + len(vectors["params"]) == len(trained)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.01, 0)
    decayed = {id(p) for p in matrices["params"]}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            plain = name.endswith("bias") or "LayerNorm" in name
            assert (id(parameter) in decayed) is not plain, name


def test_gradients_are_clipped_to_the_asked_norm(tiny_config):
    module = MICModule(load(tiny_config, "trainer.max_steps=1"))
    fitted(module, gradient_clip_val=1e-3)
    norm = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).norm()
    assert norm <= 1e-3 * 1.001


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_term_and_cure(module):
    with torch.no_grad():
        next(module.encoder.parameters()).fill_(torch.nan)
    with pytest.raises(RunError, match=r"step 1: loss is nan \(loss, contrastive.*learning_rate"):
        fitted(module)


def test_compiling_keeps_the_names_of_the_weights(tiny_config):
    plain = MICModule(load(tiny_config))
    compiled = MICModule(load(tiny_config, "trainer.compile=true"))  # compiles at first use
    assert plain.state_dict().keys() == compiled.state_dict().keys()


# Teachers


def taught(tiny_config: Path, kind: str, *overrides: str) -> MICModule:
    learn = ("objective.distillation.weight=1", f"teacher.kind={kind}")
    return MICModule(load(tiny_config, *learn, *overrides))


def test_an_ema_follows_every_optimiser_step_and_no_other_batch(tiny_config):
    module = taught(
        tiny_config, "ema", "teacher.decay=0.5", "trainer.max_steps=2", "trainer.warmup=0"
    )
    before = {name: value.clone() for name, value in module.encoder.named_parameters()}
    seen = [before]

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            seen.append({n: v.detach().clone() for n, v in pl_module.encoder.named_parameters()})

    fitted(module, accumulate_grad_batches=2, callbacks=[Watch()])
    assert len(seen) == 1 + 4  # four batches, two optimiser steps
    averages = dict(module.teacher.encoder.named_parameters())
    moved = 0.0
    for name, start in before.items():
        expected = 0.5 * (0.5 * start + 0.5 * seen[2][name]) + 0.5 * seen[4][name]
        torch.testing.assert_close(averages[name], expected, rtol=1e-6, atol=1e-7, msg=name)
        moved = max(moved, (expected - start).abs().max().item())
        assert averages[name].grad is None
    assert moved > 1e-4


def test_a_checkpoint_holds_the_ema_and_gives_it_back(tiny_config, tmp_path):
    module = taught(tiny_config, "ema")
    fitted(module).save_checkpoint(tmp_path / "last.ckpt")
    restored = MICModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    for name, value in module.teacher.state_dict().items():
        torch.testing.assert_close(restored.teacher.state_dict()[name], value, rtol=0, atol=0)
    student = module.encoder.state_dict()
    assert any(
        not torch.equal(value, student[name.removeprefix("encoder.")])
        for name, value in module.teacher.state_dict().items()
    )


def test_a_frozen_teacher_stays_as_it_was_and_out_of_the_checkpoint(tiny_config, tmp_path):
    module = taught(tiny_config, "frozen")
    texts = ["the cat sees a house", "a dog likes the river"]
    tokens = module.encoder.tokenize(texts)
    before = module.teacher(tokens, module.teacher.prepare(texts), torch.zeros(2, 32))
    fitted(module).save_checkpoint(tmp_path / "last.ckpt")
    assert not [name for name in module.state_dict() if name.startswith("teacher")]
    restored = MICModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    for taught_module in (module, restored):
        embeddings = taught_module.teacher(
            tokens, taught_module.teacher.prepare(texts), torch.zeros(2, 32)
        )
        torch.testing.assert_close(embeddings, before, rtol=0, atol=0)


def test_regression_on_a_teacher_of_another_width_is_refused(tiny_config):
    with pytest.raises(InputError, match=r"the teacher is 32 wide, the student 8"):
        taught(
            tiny_config,
            "frozen",
            "objective.regression.weight=1",
            "encoder.projection=8",
            "dims=[4]",
        )
