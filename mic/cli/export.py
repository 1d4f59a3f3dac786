"""What `mic export` takes on the command line."""

from pathlib import Path
from typing import Any


def export_command(actions: Any) -> Any:
    """Add the command to argparse's subcommands and return its parser."""
    export = actions.add_parser(
        "export",
        help="a sentence-transformers folder with a model card",
        description="Write a run's encoder, or any sentence-transformers model, as a folder that "
        "loads without mic, with a model card. Its embeddings are compared with ours before it "
        "gets its name.",
    )
    export.add_argument(
        "model", metavar="MODEL", help="a run directory, a model folder or a Hub name"
    )
    export.add_argument(
        "--to", metavar="FOLDER", type=Path, required=True, help="where it goes; replaces an export"
    )
    export.add_argument(
        "--dim", metavar="D", type=int, help="cut to D numbers for good (default: all of them)"
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
    export.add_argument("--onnx", action="store_true", help="write onnx/model.onnx as well")
    export.add_argument("--push", metavar="REPO", help="send it to the Hugging Face Hub, private")
    export.add_argument("--public", action="store_true", help="with --push: for all to see")
    return export
