"""The encoder equals Hugging Face's: hidden states, pooling, gradients, encodings."""

import copy

import numpy as np
import pytest
import torch
from references import gaussian
from sentences import answer, sentence
from tiny_model import LAYERS, WIDTH
from torch import nn

from mic.encoder.encoder import Encoder
from mic.errors import InputError
from mic.nested import mean_pool

TEXTS = [sentence(1), "cat", f"{sentence(2)} and {answer(2)}", sentence(3), "a dog"]
EVERY = list(range(LAYERS + 1))


def batch_of(encoder, texts=TEXTS):
    return encoder.tokenize(texts)


def reference(encoder, tokens):
    """Hugging Face's own list of all hidden states."""
    return encoder.backbone(**tokens, output_hidden_states=True).hidden_states


def without_dropout(encoder):
    """Training mode, where checkpointing works, but nothing random."""
    for module in encoder.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder


# Hidden states


@pytest.mark.parametrize("layers", [[], [0], [2], [LAYERS], [3, 1], EVERY], ids=str)
def test_the_hidden_states_asked_for_are_hugging_faces_and_no_others_are_kept(encoder, layers):
    tokens = batch_of(encoder)
    for _ in range(2):
        encoded = encoder(tokens, layers)
        assert list(encoded.hidden) == layers
        for layer in layers:
            assert torch.equal(encoded.hidden[layer], reference(encoder, tokens)[layer])
        encoder(tokens)  # asked for none: and none is left
        assert encoder._hidden == {}
    assert torch.equal(encoded.mask, tokens["attention_mask"].bool())


@pytest.mark.parametrize("layer", [-1, LAYERS + 1])
def test_a_layer_that_is_not_there_is_refused(encoder, layer):
    with pytest.raises(InputError, match=rf"layer {layer}: .* 0 \(embeddings\) to 3; correct"):
        encoder(batch_of(encoder), [layer])


def test_a_deep_copy_keeps_hidden_states_of_its_own(encoder):
    tokens = batch_of(encoder)
    encoder.watch(EVERY)
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    for each in (other, encoder, other):
        expected = reference(each, tokens)
        for layer, hidden in each(tokens, EVERY).hidden.items():
            assert torch.equal(hidden, expected[layer])
    assert not torch.equal(encoder(tokens, [1]).hidden[1], other(tokens, [1]).hidden[1])
    assert encoder._hidden == other._hidden == {}


def test_a_compiled_backbone_returns_the_same_states_for_every_shape_and_keeps_its_names(encoder):
    names, plain = list(encoder.state_dict()), copy.deepcopy(encoder)
    encoder.watch(EVERY)
    compiled = []
    encoder.compile_backbone(backend=lambda graph, _: compiled.append(graph) or graph.forward)
    for texts in (TEXTS, TEXTS[:2]):
        tokens = batch_of(encoder, texts)
        output, expected = encoder(tokens, EVERY), plain(tokens, EVERY)
        torch.testing.assert_close(output.pooled, expected.pooled)
        for layer in EVERY:
            torch.testing.assert_close(output.hidden[layer], expected.hidden[layer])
    assert compiled
    assert list(encoder.state_dict()) == names
    torch._dynamo.reset()


# Gradients


@pytest.mark.parametrize("freeze", [0, 1])
def test_gradient_checkpointing_changes_no_gradient(encoder, freeze):
    encoder.freeze(embeddings=bool(freeze), layers=freeze)
    calls, gradients = [], []
    encoder.blocks()[1].attention.register_forward_hook(lambda *_: calls.append(1))
    for checkpointing in (False, True):
        if checkpointing:
            encoder.backbone.gradient_checkpointing_enable({"use_reentrant": False})
        encoder.zero_grad()
        encoded = without_dropout(encoder)(batch_of(encoder), EVERY)
        losses = [(layer + 1) * hidden.pow(3).mean() for layer, hidden in encoded.hidden.items()]
        (sum(losses) + encoded.pooled[:, 0].sum()).backward()
        gradients.append({n: p.grad for n, p in encoder.named_parameters() if p.requires_grad})
        assert encoder._hidden == {}  # what a backward pass computes again is not kept
    assert len(calls) == 1 + 2  # it did compute them again
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-6, atol=1e-6)
        assert gradient.any(), name


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("layers", [0, 1, LAYERS])
def test_freezing_stops_the_embeddings_and_the_lowest_blocks_and_nothing_else(
    encoder, embeddings, layers
):
    stopped = ["model.0.model.pooler."]  # BERT's own head, which no embedding passes through
    stopped += ["model.0.model.embeddings."] * embeddings
    stopped += [f"model.0.model.encoder.layer.{block}." for block in range(layers)]
    encoder.freeze(embeddings, layers)
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad != name.startswith(tuple(stopped)), name


def test_freezing_more_blocks_than_there_are_is_refused(encoder):
    with pytest.raises(InputError, match="freeze_layers=4: the backbone has 3"):
        encoder.freeze(embeddings=False, layers=4)


# Pooling


def test_the_mean_of_half_precision_is_taken_in_single_and_that_of_nothing_is_zero():
    hidden, mask = gaussian(2, 100, 5).bfloat16(), torch.ones(2, 100).bool()
    torch.testing.assert_close(mean_pool(hidden, mask), hidden.float().mean(1))
    assert not mean_pool(hidden, ~mask).any()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("how", ["mean", "cls", "last"])
def test_the_side_of_the_padding_does_not_matter(model_folder, how, side):
    encoder = Encoder.from_pretrained(model_folder, pooling=how)
    alone = torch.cat([encoder(batch_of(encoder, [text])).pooled for text in TEXTS])
    encoder.tokenizer.padding_side = side
    tokens = batch_of(encoder)
    # BERT, unlike others, counts positions from the left end of the padding, not of the text
    starts = tokens["attention_mask"].argmax(1, keepdim=True)
    places = (torch.arange(tokens["input_ids"].shape[1]) - starts).clamp_min(0)
    together = encoder({**tokens, "position_ids": places}).pooled
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


# Encoding


def test_encodings_are_the_pooled_outputs_in_the_texts_order_with_length_1(encoder):
    expected = []
    for text in TEXTS:
        states = reference(encoder, encoder.tokenize([text]))[-1][0].double().mean(0)
        expected.append((states / states.norm()).detach().numpy())
    rows = encoder.encode(TEXTS)
    assert rows.dtype == np.float32
    assert rows.shape == (len(TEXTS), WIDTH)
    np.testing.assert_allclose(rows, np.stack(expected), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_the_batch_size_does_not_matter_and_every_text_is_reported(encoder, batch_size):
    reported = []
    rows = encoder.encode(TEXTS, batch_size=batch_size, progress=reported.append)
    np.testing.assert_allclose(rows, encoder.encode(TEXTS), atol=1e-5)
    assert sum(reported) == len(TEXTS)
    assert max(reported) <= batch_size


@pytest.mark.parametrize("dim", [1, 5, WIDTH])
def test_encodings_are_cut_first_and_then_scaled(encoder, dim):
    cut = encoder.embed(TEXTS).numpy()[:, :dim]
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(TEXTS, dim=dim), expected, atol=1e-6)


@pytest.mark.parametrize("dim", [0, -1, WIDTH + 1])
def test_a_width_that_is_not_there_is_refused(encoder, dim):
    with pytest.raises(InputError, match=rf"dims \[{dim}\]: width {dim} is .*; remove it"):
        encoder.encode(TEXTS, dim=dim)


def test_no_texts_have_no_encodings_and_one_string_is_not_a_list(encoder):
    assert encoder.encode([], dim=5).shape == (0, 5)
    assert encoder.embed([]).shape == (0, WIDTH)
    with pytest.raises(TypeError, match="one string; give a list"):
        encoder.encode("the cat")


def test_texts_beyond_the_longest_are_cut(model_folder):
    encoder = Encoder.from_pretrained(model_folder, max_length=4)  # [CLS] the cat [SEP]
    np.testing.assert_array_equal(encoder.encode(["the cat eats"]), encoder.encode(["the cat"]))


@pytest.mark.parametrize("training", [True, False])
def test_encoding_is_without_dropout_and_leaves_the_mode_as_it_was(encoder, training):
    encoder.train(training)
    assert np.array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS))
    assert encoder.training is encoder.backbone.training is training
    with pytest.raises(ZeroDivisionError):
        encoder.encode(TEXTS, progress=lambda size: size // 0)
    assert encoder.training is encoder.backbone.training is training


def test_a_fresh_encoder_has_no_dropout_before_and_after_it_encodes(encoder):
    tokens = batch_of(encoder)
    before = encoder(tokens).pooled
    encoder.encode(TEXTS)
    assert torch.equal(encoder(tokens).pooled, before)
