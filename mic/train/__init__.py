"""One training run: the Lightning module, its callbacks, exact resume."""
