"""Texts to embeddings: backbone, pooling, head, tokenizer, teachers, embeddings on disk."""
