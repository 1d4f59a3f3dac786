"""Log the geometry of every prefix of the validation rows, before training and at each validation.

Both views of a pair are rows. Their embeddings are those of the validation's own forward pass:
nothing is encoded again. On several ranks the values are those of all rows together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mic.data.batch import Batch
from mic.metrics import Moment, Moments, Spread
from mic.metrics.geometry import correlation_summary, cross_correlation, spectrum
from mic.metrics.moments import exact_device
from mic.nested import unit
from mic.report import figures
from mic.tracking.snapshots import Snapshot, histograms, write_snapshot
from mic.train.step_metrics import record


class SpectralIsotropy(Callback):
    """Log geometry/<measure>/d<dim> and geometry/rows; write the spectra to `folder`, if given.

    Unit vectors at the full width make the second moment, of which every prefix is a leading block.
    Uniformity, alignment and mean cosine are of the prefixes as they are used: cut, then scaled to
    length 1; uniformity compares the first `pair_rows` rows of each view with each other.
    `moment` is that of the last validation, `values` its measures, `snapshot` its arrays.
    """

    def __init__(
        self,
        dims: Sequence[int],
        map_dim: int | None = None,
        pair_rows: int = 2048,
        folder: Path | None = None,
    ) -> None:
        self.dims = tuple(dims)
        self.map_dim = nearest_width(dims, map_dim)
        self.pair_rows = pair_rows
        self.folder = folder
        self.moments: Moments | None = None
        self.moment: Moment | None = None
        self.spread = Spread(self.dims)
        self.values: dict[str, float] = {}
        self.snapshot: Snapshot | None = None
        self._rows = 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.moments = None
        self.spread.reset()
        self._rows = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        queries, keys = outputs["pooled"]
        teacher = outputs["teacher"]
        if self.moments is None:
            taught = 0 if teacher is None else teacher[0].shape[1]
            self.moments = Moments(queries.shape[1], taught).to(exact_device(queries.device))
            self.spread.to(exact_device(queries.device))
        for view, rows in enumerate((queries, keys)):
            exact = rows.to(self.moments.total.device).double()
            self.moments.update(unit(exact), None if teacher is None else teacher[view])
        self.spread.update(queries, keys, keep=self._rows < self.pair_rows)
        self._rows += sum(batch.sizes) if batch.sizes else len(queries)  # those of all ranks

    def on_validation_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
    ) -> None:
        if self.moments is None:
            return
        self.moment = self.moments.compute()
        measures = {**self.moment.measures(self.dims), **self.spread.compute()}
        rows, covariance = self.moment.rows, self.moment.covariance
        self.values = {f"geometry/{name}": float(value) for name, value in measures.items()}
        record(trainer, {**self.values, "geometry/rows": rows})
        steps = 0 if trainer.sanity_checking else trainer.global_step
        self.snapshot = Snapshot(
            steps,
            rows,
            {dim: spectrum(covariance[:dim, :dim]) for dim in self.dims},
            covariance.diagonal(),
            self.map_dim,
            None if self.map_dim is None else cross_correlation(covariance, self.map_dim),
        )
        if not trainer.is_global_zero:
            return
        if self.folder is not None:
            write_snapshot(self.folder, self.snapshot)
        for logger in picture_loggers(trainer):
            for name, values in histograms(self.snapshot).items():
                logger.log_histogram(name, values, steps)


class CrossCorrelationMap(Callback):
    """Log correlation/<measure>/d<dim> of prefix and residual; draw the map of one width.

    The moments are those of `spectral`, an earlier callback of the trainer. The picture, drawn
    where a logger shows pictures, is `figures/cross_correlation_map.png` of `folder`.
    """

    def __init__(self, spectral: SpectralIsotropy, folder: Path | None = None) -> None:
        self.spectral = spectral
        self.folder = folder

    def on_validation_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
    ) -> None:
        moment, snapshot = self.spectral.moment, self.spectral.snapshot
        if moment is None or snapshot is None:
            return
        covariance, rows, full = moment.covariance, moment.rows, self.spectral.dims[-1]
        values = {
            f"correlation/{name}/d{dim}": value
            for dim in self.spectral.dims
            if dim < full
            for name, value in correlation_summary(covariance, dim, rows).items()
        }
        floor = max(rows - 1, 1) ** -0.5
        record(trainer, {**values, "correlation/floor": floor})
        loggers = picture_loggers(trainer)
        if not trainer.is_global_zero or not loggers or snapshot.correlation is None:
            return
        assert self.folder is not None
        file = self.folder / "figures" / "cross_correlation_map.png"
        file.parent.mkdir(exist_ok=True)
        figures.save(figures.snapshot_map(snapshot), file)
        for logger in loggers:
            logger.log_image(f"correlation/map/d{snapshot.map_dim}", file, snapshot.step)


def nearest_width(dims: Sequence[int], wanted: int | None) -> int | None:
    """The nested width nearest to the wanted one, below the full width, which has no residual.

    >>> nearest_width([16, 64, 256, 384], 128)
    64
    """
    below = list(dims)[:-1]
    return min(below, key=lambda dim: abs(dim - wanted)) if below and wanted else None


def picture_loggers(trainer: Trainer) -> list[Any]:
    """The loggers that show pictures and histograms."""
    return [logger for logger in trainer.loggers if getattr(logger, "has_pictures", False)]
