"""Evaluation tasks: read them from files, and score embeddings by them."""
