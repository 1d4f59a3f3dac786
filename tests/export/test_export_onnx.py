"""The ONNX graph gives the encoder's vectors, for any number of texts of any length."""

import importlib.util

import jaxtyping
import numpy as np
import pytest
from sentences import answer, sentence

from mic.cli.main import main
from mic.encoder.encoder import Encoder
from mic.export import onnx

MISSING = [name for name in onnx.NEEDED if importlib.util.find_spec(name) is None]
TEXTS = [*map(sentence, range(4)), " ".join(map(answer, range(9))), "cat"]


@pytest.fixture
def unchecked():
    """Without our shape checker, which takes sizes for numbers: the graph would keep them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (pip extra onnx)")
def test_the_graph_gives_our_vectors(tiny_run, tmp_path, capsys, unchecked):
    import onnxruntime

    assert main(["export", str(tiny_run), "--to", str(tmp_path / "out"), "--dim=8", "--onnx"]) == 0
    assert "onnx/model.onnx: the largest difference is" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / onnx.FILE))
    encoder = Encoder.from_pretrained(tiny_run)
    for texts in (TEXTS, TEXTS[:2], TEXTS[-1:]):
        tokens = {name: value.numpy() for name, value in encoder.tokenize(texts).items()}
        states, embeddings = session.run(None, tokens)
        np.testing.assert_allclose(embeddings, encoder.encode(texts, dim=8), atol=1e-6)
        assert states.shape == (*tokens["input_ids"].shape, encoder.hidden_width)


def test_packages_that_are_not_there_are_named_before_anything_is_read(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(onnx.importlib.util, "find_spec", lambda name: None)
    assert main(["export", "no/model", "--to", str(tmp_path / "out"), "--onnx"]) == 2
    printed = capsys.readouterr().err
    assert "--onnx: onnx, onnxscript, onnxruntime not installed; pip install 'mic-" in printed
