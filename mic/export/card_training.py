"""Write the card's sections on a run: its geometry, data, objective and versions."""

from collections.abc import Iterator, Sequence
from math import isnan
from pathlib import Path

from mic.config.diff import config_diff, flat_values
from mic.config.schema_data import Source as Corpus
from mic.export.source import ModelSource
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


def geometry_section(source: ModelSource, dims: Sequence[int]) -> Iterator[str]:
    """The last values of the measures up to the step of the weights; none for a teacher."""
    run, step = source.run, source.step
    if run is None or step is None or source.teacher:
        return
    shown = [dim for dim in logged_widths([run], "geometry/effective_rank") if dim <= dims[-1]]
    if not shown:
        return

    def last(name: str) -> tuple[int, float] | None:
        values = run.metrics.get(name, {}).items()
        return max(((logged, value) for logged, value in values if logged <= step), default=None)

    rows, newest = [], 0
    for name, (label, form) in MEASURES.items():
        values = [last(f"{name}/d{dim}") for dim in shown]
        known = [pair for pair in values if pair is not None]
        if known:
            cells = [
                "-" if pair is None or isnan(pair[1]) else f"{pair[1]:{form}}" for pair in values
            ]
            rows.append([label, *cells])
            newest = max(newest, *(logged for logged, _ in known))
    if not rows:
        return
    counted = last("geometry/rows")
    texts = f"{counted[1]:,.0f} validation texts" if counted else "the validation texts"
    yield "## Geometry"
    yield f"Embeddings of {texts} at step {newest:,}, cut to their first dimensions:"
    yield numeric_markdown(["dimensions", *map(str, shown)], rows)


def data_section(run: Run) -> Iterator[str]:
    """Every corpus with its hash and its rows; a config states no licence."""
    hashes = dict(run.meta.get("data") or {})
    rows = [
        [
            name,
            corpus_location(corpus),
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
        sentence = f"{counted:,} rows in all"
        overlap = dict(run.meta.get("texts_trained_on") or {})
        repeated = ", ".join(
            f"{task} {count:,}" for task, count in overlap.items() if count is not None
        )
        yield sentence + (
            f"; texts of the tasks that are among them: {repeated}." if repeated else "."
        )


def corpus_location(corpus: Corpus) -> str:
    """Where a corpus was read from, without the folders of that machine."""
    path = corpus.path
    local = path.endswith(LOCAL) or path.startswith(("/", ".", "~")) or Path(path).exists()
    name = Path(path).name if local else path
    return f"{name} ({corpus.subset})" if corpus.subset else name


def objective_section(run: Run) -> Iterator[str]:
    """The settings of the objective, the teacher and the trainer that are not the defaults."""
    changed = {
        key: value for key, value in config_diff(run.config).items() if key.startswith(SECTIONS)
    }
    changed = {"objective.dims": flat_values(run.config).get("objective.dims"), **changed}
    rows = [[key, setting_text(value)] for key, value in changed.items()]
    yield "### Objective"
    yield "What differs from mic's defaults:"
    yield numeric_markdown(["key", "value"], rows)


def setting_text(value: object) -> str:
    """A setting as the card shows it; of a path only its last component."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return Path(text).name if isinstance(value, str) and text.startswith(("/", "~", ".")) else text


def versions_section(run: Run) -> Iterator[str]:
    known = dict(run.meta.get("versions") or {})
    if run.meta.get("git_commit"):
        known["commit of mic"] = str(run.meta["git_commit"])[:10]
    if known:
        yield "### Versions"
        yield ", ".join(f"{name} {version}" for name, version in known.items()) + "."
