"""Log to Weights & Biases, check its server, and make a workspace there."""
