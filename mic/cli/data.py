"""`mic data`: report what a config would train on."""

import argparse
from typing import Any

from mic.cli.arguments import silence_libraries
from mic.config.loading import load


def add_data(actions: Any) -> None:
    data = actions.add_parser(
        "data",
        help="what a config would train on",
        description="Read the corpora of CONFIG and report, in Markdown, rows, lengths, repeats, "
        "overlap with evaluation, and padding; nothing is trained.",
    )
    data.add_argument("config", metavar="CONFIG", help="a YAML file")
    data.add_argument("overrides", metavar="key=value", nargs="*", help="see `mic train --help`")
    data.set_defaults(run=run_data)


def run_data(options: argparse.Namespace) -> None:
    config = load(options.config, *options.overrides)
    silence_libraries()
    from mic.data.report import corpus_report
    from mic.report.tables import padded_markdown
    from mic.train.module import load_encoder, training_tokenize
    from mic.train.run import read_data, read_tasks

    data = read_data(config, training_tokenize(config, load_encoder(config)))
    validation, test = read_tasks(config, data, required=False)
    texts = {task.name: task.evaluated for task in (*validation, *test)}
    for paragraph in corpus_report(data, texts, padded_markdown):
        print(paragraph, flush=True)
        print()
