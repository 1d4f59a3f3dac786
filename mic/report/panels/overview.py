"""What was run: the runs, what their configs change, versions and data."""

from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

from mic.config.diff import config_diff, flat_values
from mic.config.loading import Config
from mic.report.panel import Panel, View
from mic.report.tables import Table
from mic.tracking.reader import Run
from mic.tracking.seed_groups import format_value, group_differences


def runs_table(view: View) -> Table:
    """A row a run: how far it is, how long it took, over how many rows."""
    head = ["run", "seed", "state", "steps", "minutes", "pairs / s", "rows", "commit"]
    return Table("Runs", head, [about_run(run) for run in view.runs])


def about_run(run: Run) -> list[str]:
    steps, meta = run.config.trainer.max_steps, run.meta
    if not run.finished:
        state = f"step {run.step:,} of {steps:,}: training, or stopped"
        return [run.name, str(run.config.seed), state, f"{run.step:,}", *"----"]
    return [
        run.name,
        str(meta.get("seed", "-")),
        "finished" if meta.get("segments", 1) < 2 else f"finished, in {meta['segments']} segments",
        f"{meta.get('steps', steps):,}",
        scaled(meta.get("seconds"), 60, 1),
        scaled(meta.get("pairs_per_second"), 1, 0),
        f"{dict(meta.get('rows') or {}).get('train') or 0:,}",
        str(meta.get("git_commit") or "-")[:10],
    ]


def scaled(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:,.{digits}f}"


def run_warnings(view: View) -> list[str]:
    """What a reader should know of the runs before they believe the intervals."""
    return [
        f"{group.label}: two runs have the same seed, so that their interval is too narrow."
        for group in view.groups
        if len({run.config.seed for run in group.runs}) < len(group.runs)
    ]


def config_panel(view: View) -> Panel:
    """The config's differences from the defaults, or the groups' from each other."""
    first = view.groups[0].runs[0]
    usual = unset(first.config, Config())
    defaults, changed = flat_values(usual), config_diff(first.config, usual)
    tables = []
    if view.compared:
        apart = group_differences([group.runs for group in view.groups])
        keys = list(dict.fromkeys(key for changes in apart for key in changes))
        rows = [[key, *(value(changes, key) for changes in apart)] for key in keys]
        tables.append(Table("Differences of the groups", ["key", *view.labels], rows))
        changed = {key: value_set for key, value_set in changed.items() if key not in keys}
    tables.append(
        Table(
            "Shared differences from the defaults" if view.compared else "Config diff",
            ["key", "value", "default"],
            [
                [key, format_value(value_set), value(defaults, key)]
                for key, value_set in changed.items()
            ],
        )
    )
    return Panel(
        "Config",
        tables=tables,
        folded={table.title: [table] for table in (about_data(view), versions(view)) if table.rows},
    )


def unset(of: Any, usual: Any) -> Any:
    """A config with the corpora and tasks of `of`, and every setting of them at its default."""
    made = copy(usual)
    for item in fields(of):
        value = getattr(of, item.name)
        if is_dataclass(value):
            setattr(made, item.name, unset(value, getattr(usual, item.name)))
        elif isinstance(value, dict):
            setattr(
                made,
                item.name,
                {key: unset(item_value, type(item_value)()) for key, item_value in value.items()},
            )
    return made


def value(of: dict[str, Any], key: str) -> str:
    return format_value(of[key]) if of.get(key, "???") != "???" else "-"


def about_data(view: View) -> Table:
    """Hashes of what every run has read, and its rows."""
    rows = []
    for run in view.runs:
        rows += [[run.name, f"{split} rows", f"{n:,}"] for split, n in entries(run, "rows")]
        rows += [[run.name, name, str(entry)] for name, entry in entries(run, "data")]
    return Table("Data: rows and hashes", ["run", "of", ""], rows)


def versions(view: View) -> Table:
    rows = [[run.name, name, str(of)] for run in view.runs for name, of in entries(run, "versions")]
    return Table("Versions", ["run", "package", ""], rows)


def entries(run: Run, name: str) -> list[tuple[str, Any]]:
    return list(dict(run.meta.get(name) or {}).items())
