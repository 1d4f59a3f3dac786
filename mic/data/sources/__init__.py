"""Files, data sets and docstrings to rows of text."""
