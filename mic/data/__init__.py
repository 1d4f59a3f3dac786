"""Files to batches: corpora on disk, the order of batches, streams, the Lightning data module."""
