"""The panels of a run's report."""
