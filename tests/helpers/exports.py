"""An exported folder as sentence-transformers reads it."""

import numpy as np
import pytest

DIMS = [4, 8, 16]


def stock(folder, **options):
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is what reads the folder"
    )
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu", **options)


def close(a, b, tolerance=1e-6):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=0)
