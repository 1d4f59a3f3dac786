"""Write the card's sections on quality: at every width and precision, and what cutting costs."""

from collections.abc import Iterator, Mapping, Sequence

from mic.evaluation.scoring import PCA, RAW
from mic.export.record import ExportRecord
from mic.metrics.quantization import PRECISIONS, bytes_per_vector
from mic.report.tables import numeric_markdown
from mic.tracking.reader import OWN, Scores

HEADLINES = ("ndcg@10", "spearman", "accuracy", "ap", "v_measure")


def width_section(record: ExportRecord) -> Iterator[str]:
    """Scores of the run at every width, beside the baselines that need no training."""
    run, widths = record.source.run, set(record.dims)
    if run is None or not run.methods:
        return
    label = "this model" if record.source.ended else "the student at the run's end, not this model"
    names = {RAW: f"{RAW}, untrained", PCA: f"{PCA}, untrained", OWN: label}
    yield "## Quality against width"
    for task, metrics in run.methods[OWN].items():
        metric = next(name for name in (*HEADLINES, *metrics) if name in metrics)
        dims = [dim for dim in metrics[metric] if dim in widths or dim <= record.dims[-1]]
        rows = [
            [names[name], *(f"{scores[task][metric][dim]:.1f}" for dim in dims)]
            for name, scores in run.methods.items()
        ]
        yield f"{task}, {metric} (times 100):"
        yield numeric_markdown(["", *map(str, dims)], rows)
        yield from untrained_wins(run.methods, task, metric, dims)
    yield (
        "Untrained: the encoder that training began with, cut as it is, or projected to its "
        "principal components."
    )


def untrained_wins(
    methods: Mapping[str, Scores], task: str, metric: str, dims: Sequence[int]
) -> Iterator[str]:
    """Sentences on the widths at which a baseline is as good as the trained model."""
    trained = methods[OWN][task][metric]
    for name, scores in methods.items():
        lost = [dim for dim in dims if name != OWN and scores[task][metric][dim] >= trained[dim]]
        if lost:
            at_widths = ", ".join(map(str, lost))
            yield (
                f"At {at_widths} dimensions {name} of the untrained encoder is as good or better."
            )


def precision_section(record: ExportRecord) -> Iterator[str]:
    """The quality of every width at every precision, and the bytes of an embedding."""
    if not record.quality:
        return
    yield "## Precision"
    for result in record.quality:
        full = result.values[PRECISIONS[0]][record.dims[-1]]
        rows = [
            [
                str(dim),
                kind,
                f"{bytes_per_vector(dim)[kind]:,}",
                f"{result.values[kind][dim]:.1f}",
                f"{result.values[kind][dim] / full:.1%}" if full else "-",
            ]
            for dim in record.dims
            for kind in PRECISIONS
        ]
        yield (
            f"{result.task}, {result.metric} (times 100), {result.texts:,} texts encoded with this "
            "model:"
        )
        head = ["dimensions", "precision", "bytes", result.metric, "of full fp32"]
        yield numeric_markdown(head, rows)
    yield (
        "int8: a range for each coordinate, from at most 1,000 of the task's own texts; "
        "binary: the sign, ranked by Hamming distance. No rescoring with finer embeddings."
    )


def known_scores(record: ExportRecord) -> list[tuple[str, str, dict[int, float]]]:
    """The scores of this model at several widths: task, metric, value by width."""
    run, limit = record.source.run, record.dims[-1]
    if record.quality:
        return [
            (result.task, result.metric, result.values[PRECISIONS[0]]) for result in record.quality
        ]
    if run is None or not record.source.ended:
        return []
    known = []
    for task, metrics in run.methods[OWN].items():
        metric = next(name for name in (*HEADLINES, *metrics) if name in metrics)
        values = {dim: value for dim, value in metrics[metric].items() if dim <= limit}
        if len(values) > 1:
            known.append((task, metric, values))
    return known


def cutting_cost(task: str, metric: str, values: Mapping[int, float]) -> str:
    """One line on the scores of cut embeddings."""
    widest = max(values)
    cut = ", ".join(
        f"{value:.1f} at {dim}" for dim, value in sorted(values.items()) if dim < widest
    )
    return f"{task}, {metric}: {values[widest]:.1f} at {widest} dimensions; cut, {cut}."
