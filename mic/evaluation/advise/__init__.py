"""Advise on width and precision of vectors, measured on a user's corpus and queries."""
