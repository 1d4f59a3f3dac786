"""Models in the layouts of published ones: read, trained and exported as sentence-transformers
reads them."""

import json
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS, REFUSED, TEXTS, models_page, write_backbone
from sentence_transformers import SentenceTransformer

from mic.config.loading import load
from mic.encoder.encoder import Encoder
from mic.errors import InputError
from mic.export.export import ExportOptions, export
from mic.train.module import MICModule
from mic.train.run import train

QUICK = ("Dense with Tanh", "prompts that pooling leaves out", "static embeddings")


def stock(folder):
    return SentenceTransformer(str(folder), device="cpu")


def vectors(model):
    """By sentence-transformers: as they come, as queries and as documents."""
    ways = (model.encode, model.encode_query, model.encode_document)
    return [way(TEXTS, normalize_embeddings=True) for way in ways]


def our_vectors(encoder):
    prompts = (encoder.named_prompt(), encoder.query_prompt, encoder.document_prompt)
    return [encoder.encode(TEXTS, prompt=prompt) for prompt in prompts]


def settings(model):
    """What training and export must not lose."""
    kinds = [type(module).__name__ for module in model if type(module).__name__ != "Normalize"]
    pooled = [
        (module.pooling_mode, module.include_prompt)
        for module in model
        if hasattr(module, "include_prompt")
    ]
    lower = getattr(model[0], "do_lower_case", None)
    return kinds, pooled, lower, model.max_seq_length, model.prompts, model.default_prompt_name


@pytest.fixture(
    params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in LAYOUTS]
)
def layout(request, tmp_path):
    _, write = LAYOUTS[request.param]
    return write(tmp_path / "model")


def test_it_is_read_trained_and_exported_as_sentence_transformers_reads_it(
    layout, tmp_path, pairs_file
):
    source = stock(layout)
    for actual, expected in zip(
        our_vectors(Encoder.from_pretrained(layout)), vectors(source), strict=True
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"""
name: run
runs: {tmp_path / "runs"}
dims: [4, 8]
encoder: {{name: {layout}}}
data:
  train: {{pairs: {{path: {pairs_file}, columns: [anchor, positive], limit: 60}}}}
  validation_rows: 6
evaluation: {{pca_texts: 16}}
trainer: {{max_steps: 3, batch_size: 8, learning_rate: 1.0e-2}}
"""
    )
    train(load(config))
    trained = Encoder.from_pretrained(tmp_path / "runs/run")
    export(ExportOptions(str(tmp_path / "runs/run"), tmp_path / "export"))
    exported = stock(tmp_path / "export")
    moved = 0.0
    for actual, expected, before in zip(
        our_vectors(trained), vectors(exported), vectors(source), strict=True
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-6)
        moved = max(moved, float(np.abs(actual - before).max()))
    assert moved > 1e-3
    assert settings(exported) == settings(source)


def test_the_positions_before_robertas_first_token_hold_none(tmp_path):
    model = write_backbone(tmp_path / "model", "roberta")
    file = model / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["model_max_length"]  # as in folders whose tokenizer knows no limit
    file.write_text(json.dumps(settings))
    encoder = Encoder.from_pretrained(model)
    assert encoder.max_length == 64  # of 66 positions
    assert np.isfinite(encoder.encode(TEXTS)).all()


@pytest.mark.parametrize("layout", ["last token", "static embeddings"])
def test_a_model_without_dropout_is_not_trained_on_single_texts(layout, tmp_path, pairs_file):
    model = LAYOUTS[layout][1](tmp_path / "model")
    file = tmp_path / "config.yaml"
    file.write_text(f"data: {{train: {{texts: {{path: {pairs_file}, columns: [anchor]}}}}}}")
    config = load(file, f"encoder.name={model}", "dims=[4,8]")
    with pytest.raises(InputError, match=r"data\.train\.texts: one text column.*give pairs"):
        MICModule(config)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_one_dense_vector_a_text_is_refused_by_its_kind(kind, tmp_path):
    _, write, says = REFUSED[kind]
    with pytest.raises(InputError, match=says):
        Encoder.from_pretrained(write(tmp_path / "model"))


def test_the_page_of_models_lists_what_is_tested():
    assert (Path(__file__).parents[2] / "docs/models.md").read_text() == models_page()
