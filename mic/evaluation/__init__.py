"""Evaluate models at every width: each text is encoded once; baselines and significance."""
