"""Corpora that are read in order, without an index."""
