"""Tables of the runs, their configs' differences, versions and data."""

from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

from mic.config.diff import config_diff, flat_values
from mic.config.loading import Config
from mic.report.panel import Panel, View
from mic.report.tables import Table
from mic.tracking.reader import Run
from mic.tracking.seed_groups import format_value, group_differences


def run_table(view: View) -> Table:
    """A row a run: how far it is, how long it took, over how many rows."""
    head = ["run", "seed", "state", "steps", "minutes", "pairs / s", "rows", "commit"]
    return Table("Runs", head, [run_row(run) for run in view.runs])


def run_row(run: Run) -> list[str]:
    steps, meta = run.config.trainer.max_steps, run.meta
    if not run.finished:
        state = f"step {run.step:,} of {steps:,}: training, or stopped"
        return [run.name, str(run.config.seed), state, f"{run.step:,}", *"----"]
    return [
        run.name,
        str(meta.get("seed", "-")),
        "finished" if meta.get("segments", 1) < 2 else f"finished, in {meta['segments']} segments",
        f"{meta.get('steps', steps):,}",
        format_in_unit(meta.get("seconds"), 60, 1),
        format_in_unit(meta.get("pairs_per_second"), 1, 0),
        f"{dict(meta.get('rows') or {}).get('train') or 0:,}",
        str(meta.get("git_commit") or "-")[:10],
    ]


def format_in_unit(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:,.{digits}f}"


def seed_warnings(view: View) -> list[str]:
    """Warnings about intervals that are too narrow."""
    return [
        f"{group.label}: two runs have the same seed, so that their interval is too narrow."
        for group in view.groups
        if len({run.config.seed for run in group.runs}) < len(group.runs)
    ]


def config_panel(view: View) -> Panel:
    """The config's differences from the defaults, or the groups' from each other."""
    first = view.groups[0].runs[0]
    usual = with_defaults(first.config, Config())
    defaults, changed = flat_values(usual), config_diff(first.config, usual)
    tables = []
    if view.compared:
        apart = group_differences([group.runs for group in view.groups])
        keys = list(dict.fromkeys(key for texts in apart for key in texts))
        rows = [[key, *(config_text(texts, key) for texts in apart)] for key in keys]
        tables.append(Table("Differences of the groups", ["key", *view.labels], rows))
        changed = {key: value for key, value in changed.items() if key not in keys}
    tables.append(
        Table(
            "Shared differences from the defaults" if view.compared else "Config diff",
            ["key", "value", "default"],
            [
                [key, format_value(value), config_text(defaults, key)]
                for key, value in changed.items()
            ],
        )
    )
    return Panel(
        "Config",
        tables=tables,
        folded={
            table.title: [table] for table in (data_table(view), version_table(view)) if table.rows
        },
    )


def with_defaults(of: Any, usual: Any) -> Any:
    """A config with the corpora and tasks of `of`, and every setting of them at its default."""
    result = copy(usual)
    for item in fields(of):
        section = getattr(of, item.name)
        if is_dataclass(section):
            setattr(result, item.name, with_defaults(section, getattr(usual, item.name)))
        elif isinstance(section, dict):
            setattr(
                result,
                item.name,
                {key: with_defaults(entry, type(entry)()) for key, entry in section.items()},
            )
    return result


def config_text(of: dict[str, Any], key: str) -> str:
    return format_value(of[key]) if of.get(key, "???") != "???" else "-"


def data_table(view: View) -> Table:
    """Hashes of what every run has read, and its rows."""
    rows = []
    for run in view.runs:
        rows += [[run.name, f"{split} rows", f"{n:,}"] for split, n in meta_entries(run, "rows")]
        rows += [[run.name, name, str(digest)] for name, digest in meta_entries(run, "data")]
    return Table("Data: rows and hashes", ["run", "of", ""], rows)


def version_table(view: View) -> Table:
    rows = [
        [run.name, name, str(of)] for run in view.runs for name, of in meta_entries(run, "versions")
    ]
    return Table("Versions", ["run", "package", ""], rows)


def meta_entries(run: Run, name: str) -> list[tuple[str, Any]]:
    return list(dict(run.meta.get(name) or {}).items())
