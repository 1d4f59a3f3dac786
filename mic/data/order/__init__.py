"""The order of batches as a formula of seed, epoch and position."""
