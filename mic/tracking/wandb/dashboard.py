"""A W&B workspace of what mic logs: `mic dashboard PROJECT`.

A line a width in each panel, for one run or a few; below, groups of runs (logging.group, such as
one config's seeds) as mean and standard deviation; then what a sweep asks of its weights.
"""

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mic.config.loading import keys
from mic.config.schema import ObjectiveConfig
from mic.errors import InputError, RunError
from mic.tracking.wandb.mirror import STEP, first_line
from mic.tracking.wandb.server import dead_server, no_key

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import LinePlot
    from wandb_workspaces.workspaces.interface import Section, Workspace

TERMS = tuple(
    name.removesuffix(".weight") for name, _, _ in keys(ObjectiveConfig) if name.endswith(".weight")
)
COLLAPSE = {
    "effective_rank_share": "effective rank over width",
    "dead_share": "share of dead coordinates",
    "mean_cosine": "mean cosine of different texts",
    "uniformity": "uniformity",
    "alignment": "alignment",
    "variance_cv": "unevenness of the variances",
}
REDUNDANCY = {
    "rms": "prefix and residual: rms correlation",
    "excess": "above what independent coordinates have",
    "q99": "99th percentile",
    "max": "largest",
}
QUALITY = ("ndcg@10", "recall@1", "recall@10", "mrr@10")
SPEED = ("data", "encoder", "objective", "backward", "optimizer")
USED = tuple(term for term in TERMS if getattr(ObjectiveConfig(), term).weight)
WEIGHTS = ("gamma", "threshold", *(f"{term}.weight" for term in USED))


def build(project: str, entity: str, dims: Sequence[int]) -> "Workspace":
    """The workspace at these widths, the last of which is the full one; nothing is sent."""
    from wandb_workspaces.workspaces import interface as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name="mic: collapse, quality and speed of every prefix",
        sections=[
            loss(dims),
            collapse(dims),
            redundancy(dims),
            quality(dims),
            balance_and_speed(),
            groups(dims),
            sweep(dims),
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=20),
    )


def loss(dims: Sequence[int]) -> "Section":
    return section(
        "Loss",
        lines("loss", ["train/loss", "val/loss"]),
        lines("terms as they weigh", [f"train/{term}/weighted" for term in TERMS]),
        lines("terms", [f"train/{term}" for term in TERMS]),
        lines("contrastive term per width", widths("train/contrastive", dims)),
        lines("correlation term per width", widths("train/correlation", dims[:-1])),
        lines("learning rate", ["train/learning_rate"]),
    )


def collapse(dims: Sequence[int]) -> "Section":
    panels = [
        lines(title, widths(f"geometry/{measure}", dims)) for measure, title in COLLAPSE.items()
    ]
    return section("Collapse of every prefix", *panels)


def redundancy(dims: Sequence[int]) -> "Section":
    from wandb_workspaces.reports.v2 import interface as wr

    floor = {"rms": ["correlation/floor"]}
    panels = [
        lines(title, [*widths(f"correlation/{measure}", dims[:-1]), *floor.get(measure, [])])
        for measure, title in REDUNDANCY.items()
    ]
    maps = wr.MediaBrowser(
        title="correlation map", media_keys=widths("correlation/map", dims[:-1]), num_columns=1
    )
    return section("Redundancy of prefix and residual", *panels, maps)


def quality(dims: Sequence[int]) -> "Section":
    from wandb_workspaces.reports.v2 import interface as wr

    name = f"val/pairs/{QUALITY[0]}"
    return section(
        "Quality against width",
        wr.BarPlot(title=f"{name}, last value", metrics=[*widths(name, dims)], orientation="v"),
        *(lines(metric, widths(f"val/pairs/{metric}", dims)) for metric in QUALITY),
        *(tasks(f"every validation task at d = {dim}", dim) for dim in dims),
        wr.MediaBrowser(title="at the end", media_keys=["figures/quality", "figures/variance"]),
    )


def balance_and_speed() -> "Section":
    return section(
        "Balance and throughput",
        stacked("shares of the gradient", [f"balance/{term}" for term in TERMS]),
        stacked("shares of a step's time", [f"speed/{part}" for part in SPEED]),
        lines("pairs per second", ["speed/pairs_per_second"]),
        lines("tokens per second", ["speed/tokens_per_second"]),
        lines("memory (MiB)", ["memory/mib"]),
        lines("other rows of the batch to tell apart", ["train/negatives"]),
    )


def groups(dims: Sequence[int]) -> "Section":
    """The smallest, the middle and the full width: a line a group, its band the spread."""
    few = sorted({dims[0], dims[len(dims) // 2], dims[-1]})
    names = ["train/loss", "val/loss"]
    names += [
        f"{name}/d{dim}"
        for name in (f"val/pairs/{QUALITY[0]}", "geometry/effective_rank_share")
        for dim in few
    ]
    names += widths("correlation/rms", [dim for dim in few if dim < dims[-1]])
    panels = [
        lines(
            name,
            [name],
            groupby="Group",
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )
        for name in names
    ]
    return section("Groups: mean and spread over seeds", *panels)


def sweep(dims: Sequence[int]) -> "Section":
    from wandb_workspaces.reports.v2 import interface as wr

    targets = [f"val/pairs/{QUALITY[0]}/d{dim}" for dim in (dims[0], dims[-1])]
    ranks = [f"geometry/effective_rank_share/d{dims[0]}"]
    columns = [
        *(wr.ParallelCoordinatesPlotColumn(metric=wr.Config(f"objective.{x}")) for x in WEIGHTS),
        *(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(x)) for x in (*ranks, *targets)),
    ]
    return section(
        "Sweep",
        wr.ParallelCoordinatesPlot(
            title="weights of the objective", columns=columns, layout=wr.Layout(w=24, h=10)
        ),
        *(wr.ParameterImportancePlot(with_respect_to=name) for name in targets),
        *(
            wr.ScatterPlot(
                title=f"gamma and {name}",
                x=wr.Config("objective.gamma"),
                y=wr.SummaryMetric(name),
            )
            for name in targets
        ),
    )


def section(name: str, *panels: Any) -> "Section":
    from wandb_workspaces.workspaces import interface as ws

    return ws.Section(name=name, panels=list(panels), is_open=True)


def lines(title: str, names: Iterable[str], **options: Any) -> "LinePlot":
    from wandb_workspaces.reports.v2 import interface as wr

    return wr.LinePlot(title=title, x=STEP, y=list(names), **options)


def stacked(title: str, names: Iterable[str]) -> "LinePlot":
    return lines(title, names, plot_type="stacked-area", range_y=(0, 1), max_runs_to_show=1)


def tasks(title: str, dim: int) -> "LinePlot":
    """Every metric of every validation task, whatever their names."""
    return lines(title, [], metric_regex=f"val/.+/d{dim}$")


def widths(name: str, dims: Sequence[int]) -> list[str]:
    return [f"{name}/d{dim}" for dim in dims]


def as_json(workspace: "Workspace") -> str:
    """What would be sent to W&B."""
    model: Any = workspace._to_model()
    return str(model.model_dump_json(by_alias=True, exclude_none=True, indent=2))


def save(project: str, entity: str | None, dims: Sequence[int]) -> str:
    """Save the workspace as a new view of the project; its address."""
    refuse_missing()
    if reason := no_key():
        raise InputError(f"W&B: {reason}, or add --print")
    if reason := dead_server():
        raise RunError(f"W&B: {reason}; try again later")
    import wandb

    try:
        owner = entity or wandb.Api().default_entity
        workspace: Any = build(project, str(owner), dims)
        return str(workspace.save().url)
    except Exception as error:  # W&B's are of many kinds
        raise RunError(f"W&B: project {project!r}: {first_line(error)}") from error


def refuse_missing() -> None:
    if find_spec("wandb_workspaces") is None:
        raise InputError(
            "wandb-workspaces is not installed; pip install 'mic-embeddings[dashboard]'"
        )
