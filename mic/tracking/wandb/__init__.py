"""Weights & Biases: a run's mirror, the server, and a workspace."""
