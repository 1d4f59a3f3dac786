"""Sweeps: one file, many trials, in one process or on many machines."""
