"""`mic encode`: write the embeddings of sentences on standard input."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mic.cli.arguments import add_trust_remote_code
from mic.errors import InputError


def add_encode(actions: Any) -> None:
    encode = actions.add_parser(
        "encode",
        help="sentences on standard input to embeddings",
        description="Read a sentence a line from standard input; write its embedding, of length 1.",
    )
    encode.add_argument(
        "model", metavar="MODEL", help="a run directory, a model folder or a Hub name"
    )
    encode.add_argument(
        "--dim", type=int, metavar="D", help="write the first D dimensions (default: all)"
    )
    prompt = encode.add_mutually_exclusive_group()
    prompt.add_argument(
        "--prompt-name",
        metavar="NAME",
        help="the model's prompt of this name before each sentence, as query or document (default: "
        "the one that the model has for all texts)",
    )
    prompt.add_argument("--prompt", metavar="TEXT", help="this text before each sentence")
    add_trust_remote_code(encode)
    encode.add_argument("--output", type=Path, help="write a .npy file instead of JSON lines")
    encode.add_argument("--batch-size", type=int, default=64, help="sentences at a time")
    encode.set_defaults(run=run_encode)


def run_encode(options: argparse.Namespace) -> None:
    from mic.console import bar
    from mic.encoder.encoder import Encoder

    texts = read_sentences()
    encoder = Encoder.from_pretrained(options.model, trust_remote_code=options.trust_remote_code)
    with bar("encoding", len(texts)) as advance:
        embeddings = encoder.encode(
            texts,
            prompt_name=options.prompt_name,
            prompt=options.prompt,
            batch_size=options.batch_size,
            dim=options.dim,
            progress=advance,
        )
    if options.output is None:
        for embedding in embeddings.tolist():
            print(json.dumps(embedding))
        return
    import numpy as np

    from mic.files import replacing

    with replacing(options.output) as partial, partial.open("wb") as stream:
        np.save(stream, embeddings)


def read_sentences() -> list[str]:
    """The lines of standard input. Raises InputError for an empty one, or other than UTF-8."""
    if sys.stdin.isatty():
        print("mic: reading sentences, one a line, until Ctrl-D", file=sys.stderr)
    try:
        texts = [line.rstrip("\n") for line in sys.stdin]
    except UnicodeDecodeError:
        raise InputError("standard input: not UTF-8; convert it with `iconv -t utf-8`") from None
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise InputError(f"standard input: line {number} is empty; remove it")
    return texts
