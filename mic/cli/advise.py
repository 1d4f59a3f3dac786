"""`mic advise`: name the smallest width and precision that keep the quality on your own data."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from mic.cli.arguments import add_trust_remote_code, count, share, widths


def add_advise(actions: Any) -> None:
    advise = actions.add_parser(
        "advise",
        help="the smallest width and precision that suffice for your own data",
        description="Search a corpus by its queries at every width, in fp32, int8 and binary, from "
        "one encoding of each text, and name the smallest embeddings that surely keep the wanted "
        "share of the full ones' quality: of nDCG@10 where --qrels says what is relevant, else of "
        "the full embeddings' own 10 best. The same command continues after an interruption.",
    )
    advise.add_argument(
        "model",
        metavar="MODEL",
        help="a run directory, a model folder, package:NAME or a Hub name",
    )
    files = "a file or a folder: .jsonl, .csv, .tsv, .parquet (column text"
    advise.add_argument(
        "--corpus",
        metavar="FILE",
        required=True,
        help=f"the documents: {files}, perhaps title and _id), or .txt, one a line",
    )
    advise.add_argument(
        "--queries",
        metavar="FILE",
        required=True,
        help=f"the queries: {files}, perhaps _id), or .txt, one a line",
    )
    advise.add_argument(
        "--qrels",
        metavar="FILE",
        help="which documents answer which query: columns query_id, doc_id, score, or BEIR's "
        "query-id, corpus-id, score",
    )
    advise.add_argument(
        "--keep",
        type=share,
        default=0.99,
        metavar="SHARE",
        help="of the full embeddings' quality, above 0 and at most 1 (default: 0.99)",
    )
    advise.add_argument(
        "--dims", type=widths, default=[], help="as 16,32,64 (default: the run's, or 16 to all)"
    )
    add_trust_remote_code(advise)
    advise.add_argument("--batch-size", type=count, default=64, help="texts at a time")
    advise.add_argument(
        "--to", metavar="DIR", type=Path, help="write table.md, advice.json and kept.png there"
    )
    advise.set_defaults(run=run_advise)


def run_advise(options: argparse.Namespace) -> None:
    from mic.evaluation.advise.run import AdviceRequest, advise

    arguments = vars(options)
    given = {name: arguments[name] for name in AdviceRequest._fields if name != "command"}
    advise(AdviceRequest(**given, command=advise_command(options)))


def advise_command(options: argparse.Namespace) -> str:
    """The command line that repeats this advice."""
    words = ["mic", "advise", options.model, "--corpus", options.corpus]
    words += ["--queries", options.queries]
    words += ["--qrels", options.qrels] if options.qrels else []
    words += ["--keep", f"{options.keep:g}"]
    words += ["--dims", ",".join(map(str, options.dims))] if options.dims else []
    words += ["--trust-remote-code"] if options.trust_remote_code else []
    return shlex.join([*words, *(["--to", str(options.to)] if options.to else [])])
