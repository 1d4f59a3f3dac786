"""Exact resume: the state that is saved, its files, and the settings that may change."""
