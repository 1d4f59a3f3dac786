"""The MIC losses as pure functions of tensors (arXiv 2605.29987).

Each returns one unweighted scalar per width; weights, sums and schedules are the objective's
business. All statistics are taken in at least fp32 with autocast off: under autocast even
`x.float() @ y.float()` multiplies in bf16, and a correlation of 0.05 drowns in its rounding.
"""

from mic.losses.collapse import soft_collapse, soft_collapse_terms
from mic.losses.contrastive import nested_infonce
from mic.losses.isotropy import spectral_isotropy, spectral_isotropy_terms

__all__ = [
    "nested_infonce",
    "soft_collapse",
    "soft_collapse_terms",
    "spectral_isotropy",
    "spectral_isotropy_terms",
]
