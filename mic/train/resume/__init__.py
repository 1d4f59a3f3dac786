"""Exact resume: which state is saved, its files, and what may differ when a run goes on."""
