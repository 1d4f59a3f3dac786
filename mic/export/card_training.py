"""Parts of the card that tell of a run: its geometry, data, objective and versions."""

from collections.abc import Iterator, Sequence
from math import isnan
from pathlib import Path

from mic.config.diff import config_diff, flat_values
from mic.config.schema_data import Source as Corpus
from mic.export.source import Source
from mic.report.tables import numeric_markdown
from mic.tracking.reader import Run, logged_widths

MEASURES = {  # logged name: what the card calls it, and its format
    "geometry/effective_rank": ("effective rank", ".1f"),
    "geometry/effective_rank_share": ("as a share of the width", ".2f"),
    "geometry/participation_ratio": ("participation ratio", ".1f"),
    "geometry/mean_cosine": ("mean cosine of two texts", ".2f"),
    "geometry/uniformity": ("uniformity", ".2f"),
    "geometry/dead_share": ("share of dead coordinates", ".2f"),
    "correlation/rms": ("rms correlation with the rest", ".3f"),
}
SECTIONS = ("objective.", "teacher.", "trainer.")
LOCAL = (".jsonl", ".csv", ".tsv", ".parquet", ".gz")


def geometry(source: Source, dims: Sequence[int]) -> Iterator[str]:
    """The last values of the measures, up to the step that the weights are of; not of teachers."""
    run, step = source.run, source.step
    if run is None or step is None or source.teacher:
        return
    shown = [dim for dim in logged_widths([run], "geometry/effective_rank") if dim <= dims[-1]]
    if not shown:
        return

    def last(name: str) -> tuple[int, float] | None:
        series = {at: value for at, value in run.metrics.get(name, {}).items() if at <= step}
        return max(series.items()) if series else None

    rows, at = [], 0
    for name, (label, form) in MEASURES.items():
        found = [last(f"{name}/d{dim}") for dim in shown]
        if any(found):
            cells = ["-" if one is None or isnan(one[1]) else f"{one[1]:{form}}" for one in found]
            rows.append([label, *cells])
            at = max(at, *(one[0] for one in found if one))
    if not rows:
        return
    counted = last("geometry/rows")
    over = f" of {counted[1]:,.0f} validation texts" if counted else " of the validation texts"
    yield "## Geometry"
    yield f"Embeddings{over} at step {at:,}, the first numbers of each:"
    yield numeric_markdown(["numbers", *map(str, shown)], rows)


def training_data(run: Run) -> Iterator[str]:
    """Every corpus with its hash, the rows, and the licence: nobody states one in a config."""
    hashes = dict(run.meta.get("data") or {})
    rows = [
        [
            name,
            shown(corpus),
            ", ".join(corpus.columns) or "-",
            str(hashes.get(f"train/{name}", "-"))[:16],
            "each package's own" if corpus.path.startswith("builtin:") else "not stated",
        ]
        for name, corpus in run.config.data.train.items()
    ]
    counted = dict(run.meta.get("rows") or {}).get("train")
    yield "### Data"
    yield numeric_markdown(["corpus", "read from", "columns", "SHA-256", "licence"], rows)
    if counted is not None:
        unseen = f"{counted:,} rows in all"
        overlap = dict(run.meta.get("texts_trained_on") or {})
        told = ", ".join(
            f"{task} {count:,}" for task, count in overlap.items() if count is not None
        )
        yield unseen + (f"; texts of the tasks that are among them: {told}." if told else ".")


def shown(corpus: Corpus) -> str:
    """Where a corpus was read from, without the folders of the machine that it was read on."""
    path = corpus.path
    local = path.endswith(LOCAL) or path.startswith(("/", ".", "~")) or Path(path).exists()
    name = Path(path).name if local else path
    return f"{name} ({corpus.subset})" if corpus.subset else name


def objective(run: Run) -> Iterator[str]:
    """The settings of the objective, the teacher and the trainer that are not the defaults."""
    changed = {
        key: value for key, value in config_diff(run.config).items() if key.startswith(SECTIONS)
    }
    changed = {"objective.dims": flat_values(run.config).get("objective.dims"), **changed}
    rows = [[key, cell(value)] for key, value in changed.items()]
    yield "### Objective"
    yield "What differs from mic's defaults:"
    yield numeric_markdown(["key", "value"], rows)


def cell(value: object) -> str:
    """A setting as the card shows it; of a path its last part alone."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return Path(text).name if isinstance(value, str) and text.startswith(("/", "~", ".")) else text


def versions(run: Run) -> Iterator[str]:
    known = dict(run.meta.get("versions") or {})
    if run.meta.get("git_commit"):
        known["commit of mic"] = str(run.meta["git_commit"])[:10]
    if known:
        yield "### Versions"
        yield ", ".join(f"{name} {found}" for name, found in known.items()) + "."
