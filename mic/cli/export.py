"""`mic export`: write a model as a sentence-transformers folder with a model card."""

import argparse
from pathlib import Path
from typing import Any

from mic.cli.arguments import add_trust_remote_code, silence_libraries


def add_export(actions: Any) -> None:
    export = actions.add_parser(
        "export",
        help="a sentence-transformers folder with a model card",
        description="Write a run's encoder, or any sentence-transformers model, as a folder that "
        "loads without mic, with a model card. Its embeddings are compared with those of mic "
        "before it gets its name.",
    )
    export.add_argument(
        "model", metavar="MODEL", help="a run directory, a model folder or a Hub name"
    )
    export.add_argument(
        "--to", metavar="FOLDER", type=Path, required=True, help="where it goes; replaces an export"
    )
    export.add_argument(
        "--dim", metavar="D", type=int, help="keep the first D dimensions for good (default: all)"
    )
    export.add_argument(
        "--dtype", choices=("fp32", "fp16"), default="fp32", help="of the weights on disk"
    )
    export.add_argument(
        "--teacher",
        action="store_true",
        help="the ema teacher of the run's newest checkpoint (default: --student)",
    )
    export.add_argument("--student", dest="teacher", action="store_false", help="what was trained")
    export.add_argument(
        "--checkpoint", metavar="FILE", help="a checkpoint of the run, or `newest`, not its end"
    )
    export.add_argument(
        "--quality-of",
        metavar="CONFIG",
        type=Path,
        help="score the tasks of this config, as RUN/config.yaml, at every width in fp32, int8 and "
        "binary, for the card",
    )
    add_trust_remote_code(export)
    export.add_argument("--onnx", action="store_true", help="write onnx/model.onnx as well")
    export.add_argument("--push", metavar="REPO", help="send it to the Hugging Face Hub, private")
    export.add_argument("--public", action="store_true", help="with --push: for all to see")
    export.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> None:
    silence_libraries()
    from mic.export.export import ExportOptions, export

    arguments = vars(options)
    for line in export(ExportOptions(**{name: arguments[name] for name in ExportOptions._fields})):
        print(line)
