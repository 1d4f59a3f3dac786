"""A trained encoder as others load it: a sentence-transformers folder with a model card."""
