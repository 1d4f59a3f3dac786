"""Build a W&B workspace of what mic logs: `mic dashboard PROJECT`.

First panels with a line for each width, for one run or a few; then groups of runs (logging.group,
such as one config's seeds) as mean and standard deviation; then a sweep's weights and results.
"""

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mic.config.loading import keys
from mic.config.schema import ObjectiveConfig
from mic.errors import InputError, RunError
from mic.tracking.wandb.mirror import STEP, error_line
from mic.tracking.wandb.server import dead_server, missing_key

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


def build_workspace(project: str, entity: str, dims: Sequence[int]) -> "Workspace":
    """The workspace for these widths, the last of which is the full one; nothing is sent."""
    from wandb_workspaces.workspaces import interface as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name="mic: collapse, quality and speed of every prefix",
        sections=[
            loss_section(dims),
            collapse_section(dims),
            redundancy_section(dims),
            scores_section(dims),
            speed_section(),
            groups_section(dims),
            sweep_section(dims),
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=20),
    )


def loss_section(dims: Sequence[int]) -> "Section":
    return open_section(
        "Loss",
        line_plot("loss", ["train/loss", "val/loss"]),
        line_plot("terms as they weigh", [f"train/{term}/weighted" for term in TERMS]),
        line_plot("terms", [f"train/{term}" for term in TERMS]),
        line_plot("contrastive term per width", names_by_width("train/contrastive", dims)),
        line_plot("correlation term per width", names_by_width("train/correlation", dims[:-1])),
        line_plot("learning rate", ["train/learning_rate"]),
    )


def collapse_section(dims: Sequence[int]) -> "Section":
    panels = [
        line_plot(title, names_by_width(f"geometry/{measure}", dims))
        for measure, title in COLLAPSE.items()
    ]
    return open_section("Collapse of every prefix", *panels)


def redundancy_section(dims: Sequence[int]) -> "Section":
    from wandb_workspaces.reports.v2 import interface as wr

    floor = {"rms": ["correlation/floor"]}
    panels = [
        line_plot(
            title, [*names_by_width(f"correlation/{measure}", dims[:-1]), *floor.get(measure, [])]
        )
        for measure, title in REDUNDANCY.items()
    ]
    maps = wr.MediaBrowser(
        title="correlation map",
        media_keys=names_by_width("correlation/map", dims[:-1]),
        num_columns=1,
    )
    return open_section("Redundancy of prefix and residual", *panels, maps)


def scores_section(dims: Sequence[int]) -> "Section":
    from wandb_workspaces.reports.v2 import interface as wr

    name = f"val/pairs/{QUALITY[0]}"
    return open_section(
        "Quality against width",
        wr.BarPlot(
            title=f"{name}, last value", metrics=[*names_by_width(name, dims)], orientation="v"
        ),
        *(line_plot(metric, names_by_width(f"val/pairs/{metric}", dims)) for metric in QUALITY),
        *(tasks_plot(f"every validation task at d = {dim}", dim) for dim in dims),
        wr.MediaBrowser(title="at the end", media_keys=["figures/quality", "figures/variance"]),
    )


def speed_section() -> "Section":
    return open_section(
        "Balance and throughput",
        stacked_plot("shares of the gradient", [f"balance/{term}" for term in TERMS]),
        stacked_plot("shares of a step's time", [f"speed/{phase}" for phase in SPEED]),
        line_plot("pairs per second", ["speed/pairs_per_second"]),
        line_plot("tokens per second", ["speed/tokens_per_second"]),
        line_plot("memory (MiB)", ["memory/mib"]),
        line_plot("other rows of the batch to tell apart", ["train/negatives"]),
    )


def groups_section(dims: Sequence[int]) -> "Section":
    """A line and a band for each group, at the smallest, the middle and the full width."""
    few = sorted({dims[0], dims[len(dims) // 2], dims[-1]})
    names = ["train/loss", "val/loss"]
    names += [
        f"{name}/d{dim}"
        for name in (f"val/pairs/{QUALITY[0]}", "geometry/effective_rank_share")
        for dim in few
    ]
    names += names_by_width("correlation/rms", [dim for dim in few if dim < dims[-1]])
    panels = [
        line_plot(
            name,
            [name],
            groupby="Group",
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )
        for name in names
    ]
    return open_section("Groups: mean and spread over seeds", *panels)


def sweep_section(dims: Sequence[int]) -> "Section":
    from wandb_workspaces.reports.v2 import interface as wr

    targets = [f"val/pairs/{QUALITY[0]}/d{dim}" for dim in (dims[0], dims[-1])]
    ranks = [f"geometry/effective_rank_share/d{dims[0]}"]
    columns = [
        *(wr.ParallelCoordinatesPlotColumn(metric=wr.Config(f"objective.{x}")) for x in WEIGHTS),
        *(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(x)) for x in (*ranks, *targets)),
    ]
    return open_section(
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


def open_section(name: str, *panels: Any) -> "Section":
    from wandb_workspaces.workspaces import interface as ws

    return ws.Section(name=name, panels=list(panels), is_open=True)


def line_plot(title: str, names: Iterable[str], **options: Any) -> "LinePlot":
    from wandb_workspaces.reports.v2 import interface as wr

    return wr.LinePlot(title=title, x=STEP, y=list(names), **options)


def stacked_plot(title: str, names: Iterable[str]) -> "LinePlot":
    return line_plot(title, names, plot_type="stacked-area", range_y=(0, 1), max_runs_to_show=1)


def tasks_plot(title: str, dim: int) -> "LinePlot":
    """Every metric of every validation task, whatever their names."""
    return line_plot(title, [], metric_regex=f"val/.+/d{dim}$")


def names_by_width(name: str, dims: Sequence[int]) -> list[str]:
    return [f"{name}/d{dim}" for dim in dims]


def workspace_json(workspace: "Workspace") -> str:
    """The JSON that would be sent to W&B."""
    model: Any = workspace._to_model()
    return str(model.model_dump_json(by_alias=True, exclude_none=True, indent=2))


def save_workspace(project: str, entity: str | None, dims: Sequence[int]) -> str:
    """Save the workspace as a new view of the project; return its address."""
    require_workspaces_package()
    if reason := missing_key():
        raise InputError(f"W&B: {reason}, or add --print")
    if reason := dead_server():
        raise RunError(f"W&B: {reason}; try again later")
    import wandb

    try:
        owner = entity or wandb.Api().default_entity
        workspace: Any = build_workspace(project, str(owner), dims)
        return str(workspace.save().url)
    except Exception as error:  # W&B raises errors of many kinds
        raise RunError(f"W&B: project {project!r}: {error_line(error)}") from error


def require_workspaces_package() -> None:
    if find_spec("wandb_workspaces") is None:
        raise InputError(
            "wandb-workspaces is not installed; pip install 'mic-embeddings[dashboard]'"
        )
