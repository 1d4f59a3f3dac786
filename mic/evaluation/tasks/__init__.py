"""Evaluation tasks: what is asked of the texts, and the files they are read from."""
