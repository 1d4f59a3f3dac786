"""mteb's own tasks at every width: each text encoded once, all scores by mteb's code."""
