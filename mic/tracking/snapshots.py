"""Write and read the geometry at a run's validations: RUN/geometry/step-00000045.safetensors.

The arrays that metrics.jsonl cannot hold: `spectrum/d<dim>` [dim], the eigenvalues of every
prefix's covariance, largest first; `variance` [D], each coordinate's; `correlation/d<dim>`
[dim, D - dim], the correlations of one prefix with its residual. All fp32, of `rows` unit vectors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mic.errors import InputError
from mic.files import replacing

GEOMETRY = "geometry"


class Snapshot(NamedTuple):
    """The geometry after `step` optimiser steps over `rows` embeddings."""

    step: int
    rows: int
    spectra: dict[int, Tensor]
    variance: Tensor
    map_dim: int | None
    correlation: Tensor | None


def histograms(snapshot: Snapshot) -> dict[str, list[float]]:
    """The distributions of a snapshot, for loggers.

    log10 of the eigenvalues of every prefix, and each coordinate's variance over their mean.
    """
    values_by_name = {
        f"geometry/spectrum/d{dim}": values[values > 0].log10()
        for dim, values in snapshot.spectra.items()
    }
    values_by_name["geometry/variance"] = snapshot.variance / snapshot.variance.mean()
    return {name: values[values.isfinite()].tolist() for name, values in values_by_name.items()}


def write_snapshot(run: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot whole or not at all; an earlier one of the same step is replaced."""
    tensors: dict[str, Tensor] = {f"spectrum/d{dim}": x for dim, x in snapshot.spectra.items()}
    tensors["variance"] = snapshot.variance
    if snapshot.map_dim is not None and snapshot.correlation is not None:
        tensors[f"correlation/d{snapshot.map_dim}"] = snapshot.correlation
    folder = run / GEOMETRY
    folder.mkdir(exist_ok=True)
    file = folder / f"step-{snapshot.step:08d}.safetensors"
    plain = {name: x.detach().cpu().float().contiguous() for name, x in tensors.items()}
    with replacing(file) as partial:
        save_file(plain, partial, {"step": str(snapshot.step), "rows": str(snapshot.rows)})
    return file


def read_snapshots(run: Path) -> list[Snapshot]:
    """All snapshots of a run, by step; none where its geometry was not measured.

    Raises InputError for a damaged file.
    """
    return [read_snapshot(file) for file in sorted((run / GEOMETRY).glob("step-*.safetensors"))]


def read_snapshot(file: Path) -> Snapshot:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata: Mapping[str, str] = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: not readable: {error}; remove it") from None
    spectra = {
        width_in_name(name): x for name, x in tensors.items() if name.startswith("spectrum/")
    }
    maps = {
        width_in_name(name): x for name, x in tensors.items() if name.startswith("correlation/")
    }
    map_dim = next(iter(maps), None)
    return Snapshot(
        int(metadata["step"]),
        int(metadata["rows"]),
        dict(sorted(spectra.items())),
        tensors["variance"],
        map_dim,
        None if map_dim is None else maps[map_dim],
    )


def width_in_name(name: str) -> int:
    """The width at the end of a name.

    >>> width_in_name("geometry/effective_rank/d16")
    16
    """
    return int(name.rpartition("/d")[2])
