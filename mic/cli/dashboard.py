"""`mic dashboard`: make a Weights & Biases workspace."""

import argparse
from typing import Any

from mic.cli.arguments import several_widths
from mic.config.schema import Config


def add_dashboard(actions: Any) -> None:
    dashboard = actions.add_parser(
        "dashboard",
        help="make a Weights & Biases workspace",
        description="Save a view into a W&B project: loss terms, collapse, redundancy and quality "
        "of every prefix, speed, groups of seeds, sweeps.",
    )
    dashboard.add_argument("project", metavar="PROJECT", help="a W&B project")
    dashboard.add_argument("--entity", help="its user or team (default: the key's own)")
    dashboard.add_argument(
        "--dims",
        type=several_widths,
        default=[*Config().dims, 384],
        help="widths to show, the full one last (default: 16,32,64,128,256,384)",
    )
    dashboard.add_argument("--print", action="store_true", help="show its JSON and send nothing")
    dashboard.set_defaults(run=run_dashboard)


def run_dashboard(options: argparse.Namespace) -> None:
    from mic.tracking.wandb import dashboard

    dashboard.require_workspaces_package()
    if options.print:
        workspace = dashboard.build_workspace(options.project, options.entity or "", options.dims)
        print(dashboard.workspace_json(workspace))
    else:
        print(dashboard.save_workspace(options.project, options.entity, options.dims))
