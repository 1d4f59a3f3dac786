"""The run directory, its metrics log, and the mirrors of it."""
