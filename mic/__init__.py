"""mic: text embeddings whose every prefix is a good embedding (arXiv 2605.29987)."""

__version__ = "0.1.0"
