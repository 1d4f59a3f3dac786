"""Parts of the card about quality: of the run's widths, of precisions, and what cutting costs."""

from collections.abc import Iterator, Mapping, Sequence

from mic.evaluation.scoring import PCA, RAW
from mic.export.record import Facts
from mic.export.words import listed
from mic.metrics.quantization import PRECISIONS, bytes_per_vector
from mic.report.tables import numeric_markdown
from mic.tracking.reader import OWN, Scores

HEADLINES = ("ndcg@10", "spearman", "accuracy", "ap", "v_measure")


def quality(facts: Facts) -> Iterator[str]:
    """Results of the run at every width, beside what needs no training."""
    run, widths = facts.source.run, set(facts.dims)
    if run is None or not run.methods:
        return
    own = "this model" if facts.source.ended else "the student at the run's end, not this model"
    names = {RAW: f"{RAW}, untrained", PCA: f"{PCA}, untrained", OWN: own}
    yield "## Quality against width"
    for task, metrics in run.methods[OWN].items():
        metric = next(name for name in (*HEADLINES, *metrics) if name in metrics)
        dims = [dim for dim in metrics[metric] if dim in widths or dim <= facts.dims[-1]]
        rows = [
            [names[name], *(f"{scores[task][metric][dim]:.1f}" for dim in dims)]
            for name, scores in run.methods.items()
        ]
        yield f"{task}, {metric} (times 100):"
        yield numeric_markdown(["", *map(str, dims)], rows)
        yield from not_earned(run.methods, task, metric, dims)
    yield (
        "Untrained: the encoder that training began with, cut as it is, or projected to its "
        "principal components."
    )


def not_earned(
    methods: Mapping[str, Scores], task: str, metric: str, dims: Sequence[int]
) -> Iterator[str]:
    """Where training is not better than what needs none."""
    own = methods[OWN][task][metric]
    for name, scores in methods.items():
        lost = [dim for dim in dims if name != OWN and scores[task][metric][dim] >= own[dim]]
        if lost:
            yield f"At {listed(lost)} numbers {name} of the untrained encoder is as good or better."


def precision(facts: Facts) -> Iterator[str]:
    """What every width is worth at every precision, and what it costs to keep."""
    if not facts.quality:
        return
    yield "## Precision"
    for one in facts.quality:
        full = one.values[PRECISIONS[0]][facts.dims[-1]]
        rows = [
            [
                str(dim),
                kind,
                f"{bytes_per_vector(dim)[kind]:,}",
                f"{one.values[kind][dim]:.1f}",
                f"{one.values[kind][dim] / full:.1%}" if full else "-",
            ]
            for dim in facts.dims
            for kind in PRECISIONS
        ]
        yield f"{one.task}, {one.metric} (times 100), {one.texts:,} texts encoded with this model:"
        head = ["numbers", "precision", "bytes a vector", one.metric, "of full fp32"]
        yield numeric_markdown(head, rows)
    yield (
        "int8: a range a coordinate, from a sample of at most 1,000 of the task's own texts; "
        "binary: the sign, ranked by Hamming distance. No rescoring with finer vectors."
    )


def scores_of(facts: Facts) -> list[tuple[str, str, dict[int, float]]]:
    """What is known at several widths of this very model: task, metric, value by width."""
    run, limit = facts.source.run, facts.dims[-1]
    if facts.quality:
        return [(one.task, one.metric, one.values[PRECISIONS[0]]) for one in facts.quality]
    if run is None or not facts.source.ended:
        return []
    found = []
    for task, metrics in run.methods[OWN].items():
        metric = next(name for name in (*HEADLINES, *metrics) if name in metrics)
        values = {dim: one for dim, one in metrics[metric].items() if dim <= limit}
        if len(values) > 1:
            found.append((task, metric, values))
    return found


def cost(task: str, metric: str, values: Mapping[int, float]) -> str:
    """What cutting costs, in a line."""
    widest = max(values)
    kept = ", ".join(
        f"{value:.1f} at {dim}" for dim, value in sorted(values.items()) if dim < widest
    )
    return f"{task}, {metric}: {values[widest]:.1f} at {widest} numbers; cut, {kept}."
