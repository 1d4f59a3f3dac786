"""The processes of a run: who they are, how they start, fail and are asked to stop."""
