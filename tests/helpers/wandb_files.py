"""Read the files of an offline run by W&B's own reader."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple


class WandbRun(NamedTuple):
    id: str
    about: dict[str, Any]
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    alerts: list[dict[str, Any]]
    exit_code: int
    step_metrics: set[tuple[str, str]]

    def values(self, name: str) -> dict[int, Any]:
        return {row["trainer/global_step"]: row[name] for row in self.history if name in row}

    @property
    def keys(self) -> set[str]:
        """Names of what is logged, of a picture or histogram without its parts."""
        rows = (key for row in self.history for key in row if not key.startswith("_"))
        return {key.split(".")[0] for key in rows}

    def kind(self, name: str) -> set[str]:
        return set(self.values(f"{name}._type").values())


def offline_folders(run: Path) -> list[Path]:
    return sorted((run / "wandb").glob("offline-run-*"))


def read(folder: Path) -> WandbRun:
    program = Path(sys.executable).parent / "wandb"
    done = subprocess.run(
        [program, "leet", "inspect", "--json", folder], capture_output=True, text=True, check=True
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    of = {kind: [record[kind] for record in records if record["type"] == kind] for kind in KINDS}
    summary: dict[str, Any] = {}
    for record in of["summary"]:
        summary |= record.get("update", {})
    (run,), (end,) = of["run"], of["exit"]
    return WandbRun(
        run["run_id"],
        run,
        run["config"]["update"],
        [record["item"] for record in of["history"]],
        summary,
        of["alert"],
        end.get("exit_code", 0),
        {
            (record["glob_name"], record["step_metric"])
            for record in of["metric"]
            if "glob_name" in record
        },
    )


KINDS = ("run", "history", "summary", "alert", "metric", "exit")
