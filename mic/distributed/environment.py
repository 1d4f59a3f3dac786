"""Read the environment variables of torchrun, SLURM and mic's launcher, and find the accelerator.

PyTorch is imported only when the accelerator is asked for: the command line imports this module.
"""

import os
from typing import TYPE_CHECKING

from mic.errors import InputError

if TYPE_CHECKING:
    import torch

SPECIAL_STEPS = 0xFFFFFFF0  # from this number on, steps that SLURM makes for itself


def in_slurm() -> bool:
    """Whether srun started this process as one of several.

    A batch script and the shell of salloc have SLURM's variables, too. Their steps have no number,
    or a special one: -5 from SLURM 26.05 on, 4294967290.
    """
    step = os.environ.get("SLURM_STEP_ID", "")
    return (
        os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
        and {"SLURM_PROCID", "SLURM_NTASKS"} <= os.environ.keys()
        and step.isdecimal()
        and int(step) < SPECIAL_STEPS
        and read_number("SLURM_NTASKS") > 1
    )


def read_number(name: str, default: int | None = None) -> int:
    """Read a count or an index from an environment variable.

    Raises:
        InputError: It is missing or no number.
    """
    text = os.environ.get(name, "" if default is None else str(default))
    if text.isdecimal() and (int(text) or "SIZE" not in name):
        return int(text)
    if text:
        raise InputError(f"{name} {text!r}: not a number that a launcher sets")
    cure = f"srun --{name[6:].lower().replace('_', '-')}" if "PER_NODE" in name else "torchrun"
    raise InputError(f"{name}: not set, but this is one process of several; start them by {cure}")


def accelerator() -> "torch.device":
    """The machine's accelerator, or the CPU where it has none."""
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device or torch.device("cpu")
