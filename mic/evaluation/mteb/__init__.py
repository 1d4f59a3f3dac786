"""Evaluate by mteb's tasks at every width: each text is encoded once, mteb's code scores it."""
