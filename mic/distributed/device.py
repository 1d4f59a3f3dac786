"""Where a network that no trainer has placed, and what ranks its embeddings, should compute."""

import torch


def accelerator() -> torch.device:
    """The machine's accelerator, or the CPU where it has none."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")
