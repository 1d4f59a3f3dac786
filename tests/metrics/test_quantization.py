"""Codes of a byte and a bit: those of sentence-transformers, and loops over bits."""

import numpy as np
import pytest
import torch
from references import gaussian

from mic.errors import InputError
from mic.metrics import quantization
from mic.nested import unit

WIDTHS = [1, 7, 8, 64, 67]


def vectors(dim, rows=50, seed=0):
    return unit(gaussian(rows, dim, seed=seed)).float()


@pytest.mark.parametrize("dim", WIDTHS)
def test_codes_are_those_of_sentence_transformers(dim):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.util import quantize_embeddings

    sample, x = vectors(dim, 100), vectors(dim, seed=1)
    ranges = quantization.int8_ranges(sample)
    theirs = quantize_embeddings(x.numpy(), "int8", calibration_embeddings=sample.numpy())
    # a value at the very edge of a step may be rounded to its other side
    assert np.abs(quantization.to_int8(x, ranges).numpy().astype(int) - theirs).max() <= 1
    assert (quantization.to_int8(x, ranges).numpy() == theirs).mean() > 0.99
    theirs = quantize_embeddings(x.numpy(), "ubinary")
    np.testing.assert_array_equal(quantization.to_binary(x).numpy(), theirs)


def test_int8_is_within_half_a_step_inside_the_range_and_at_its_end_outside():
    x = vectors(16, 500)
    ranges = quantization.int8_ranges(x)
    step = (ranges[1] - ranges[0]) / 255
    error = (quantization.from_int8(quantization.to_int8(x, ranges), ranges) - x).abs()
    assert (error <= step * 0.501).all()
    codes = quantization.to_int8(torch.stack([ranges[0] - 1, ranges[1] + 1]), ranges)
    assert (codes[0] == -128).all()
    assert (codes[1] == 127).all()


def test_a_coordinate_that_never_varies_has_a_code_and_one_vector_no_range():
    x = torch.tensor([[0.5, 0.0], [0.5, 1.0]])
    ranges = quantization.int8_ranges(x)
    assert quantization.from_int8(quantization.to_int8(x, ranges), ranges).isfinite().all()
    with pytest.raises(InputError, match="ranges of 1 vectors: give a sample of at least 2"):
        quantization.int8_ranges(x[:1])


@pytest.mark.parametrize("dim", WIDTHS)
def test_hamming_counts_the_signs_that_differ_and_ranks_as_their_cosine(dim):
    a, b = vectors(dim, 9), vectors(dim, 11, seed=1)
    actual = quantization.hamming(quantization.to_binary(a), quantization.to_binary(b))
    expected = [[int(((x > 0) != (y > 0)).sum()) for y in b] for x in a]
    assert actual.tolist() == expected
    ranges = quantization.int8_ranges(a)
    signs, others = (unit(quantization.as_compared(x, ranges)["binary"]) for x in (a, b))
    torch.testing.assert_close(signs @ others.T, 1 - 2 * actual / dim)


@pytest.mark.parametrize("dim", WIDTHS)
def test_the_bytes_stated_are_those_of_the_codes(dim):
    x = vectors(dim)
    stated = quantization.bytes_per_vector(dim)
    codes = quantization.to_int8(x, quantization.int8_ranges(x))
    assert stated["fp32"] == x[0].numpy().nbytes
    assert stated["int8"] == codes[0].numpy().nbytes
    assert stated["binary"] == quantization.to_binary(x)[0].numpy().nbytes
