"""A sweep's tables, figures, HTML page and best config."""
