"""Start, identify, synchronise and stop the processes of a run."""
