"""The MIC losses (arXiv 2605.29987) and those it is compared with, as pure functions of tensors.

Each returns one unweighted scalar per width; weights, sums and schedules belong to the objective.
All statistics are taken in at least fp32 with autocast off: under autocast even `x.float() @
y.float()` multiplies in bf16, whose rounding hides a correlation of 0.05.
"""

from mic.losses.contrastive import nested_infonce
from mic.losses.distillation import prefix_regression, relational_distillation
from mic.losses.ese import compression
from mic.losses.gor import spread_out
from mic.losses.sigreg import sigreg
from mic.losses.soft_collapse import soft_collapse, soft_collapse_terms
from mic.losses.spectral_isotropy import spectral_isotropy, spectral_isotropy_terms
from mic.losses.vicreg import vicreg_terms

__all__ = [
    "compression",
    "nested_infonce",
    "prefix_regression",
    "relational_distillation",
    "sigreg",
    "soft_collapse",
    "soft_collapse_terms",
    "spectral_isotropy",
    "spectral_isotropy_terms",
    "spread_out",
    "vicreg_terms",
]
