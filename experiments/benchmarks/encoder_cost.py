"""What the encoder, a chain of modules, costs beside the bare transformer,
and encoding with it beside SentenceTransformer.encode.

    python experiments/benchmarks/encoder_cost.py

The bare transformer with a mean over its tokens is what the encoder was before.
"""

import json
import time
from gzip import open as open_gzip
from itertools import islice

import numpy as np
from sentence_transformers import SentenceTransformer
from step_cost import DIMS, LENGTH, NAME, PAIRS, columns
from timing import agree, milliseconds, publish, ratio, seconds, table
from torch import Tensor

from mic.config.schema import ObjectiveConfig
from mic.data.sources.docstrings import load_docstrings
from mic.encoder.encoder import Encoder
from mic.encoder.loading import locate
from mic.nested import Encoded, mean_pool
from mic.objective.objective import Objective

STEP_ROUNDS, ENCODE_ROUNDS, TEXTS = 15, 3, 5000


def mixed_texts() -> list[str]:
    """Summaries and bodies of docstrings in turn: lines, and paragraphs."""
    with open_gzip(load_docstrings("train"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, TEXTS // 2)]
    return [text for row in rows for text in (row["summary"], row["body"])]


def main() -> None:
    encoder, batch = Encoder.from_pretrained(NAME), columns()
    objective = Objective(ObjectiveConfig(dims=DIMS, gamma=0.1, align_layers=["output"]))

    def bare(tokens: dict[str, Tensor]) -> Encoded:
        mask = tokens["attention_mask"].bool()
        states = encoder.backbone(**tokens).last_hidden_state
        return Encoded(mean_pool(states, mask), {}, mask)

    ways = {"transformer and mean": bare, "mic.Encoder": encoder}

    def loss(way: str) -> Tensor:
        total: Tensor = objective([ways[way](column) for column in batch], step=0).total
        return total

    def step(way: str) -> None:
        encoder.zero_grad(set_to_none=True)
        loss(way).backward()

    encoder.eval()
    agree(*(loss(way).item() for way in ways))
    encoder.train()
    steps = seconds({way: lambda way=way: step(way) for way in ways}, STEP_ROUNDS)

    encoder.eval()
    texts, stock = mixed_texts(), SentenceTransformer(str(locate(NAME)), device="cpu")
    few = texts[:50]
    largest = np.abs(encoder.encode(few) - stock.encode(few, normalize_embeddings=True)).max()
    agree(float(largest), 0.0, 1e-5)
    calls = {
        "SentenceTransformer.encode": lambda: stock.encode(texts, show_progress_bar=False),
        "mic.Encoder.encode": lambda: encoder.encode(texts),
    }
    encodings = seconds(calls, ENCODE_ROUNDS, warm=False, clock=time.process_time)
    tokens = sum(map(len, encoder.tokenize.ids(texts)))
    publish(
        "encoder_cost",
        "The encoder's cost",
        [
            f"A step of MIC: all-MiniLM-L6-v2, widths {DIMS}, {PAIRS} pairs of {LENGTH} + {LENGTH} "
            "tokens, fp32, dropout on, forward and backward, no optimiser. The losses are one "
            "value without dropout (1e-4).",
            table(["forward", "ms a step"], [[way, milliseconds(steps[way])] for way in ways]),
            table(
                ["ratio", "median [quartiles]"],
                [
                    [
                        "mic.Encoder / transformer and mean",
                        ratio(*(steps[way] for way in reversed(ways))),
                    ]
                ],
            ),
            f"Encoding {len(texts):,} docstrings, summaries and bodies, of "
            f"{tokens / len(texts):.0f} tokens on average and 256 at most, at each library's own "
            f"batch size; CPU seconds, "
            f"{ENCODE_ROUNDS} rounds. The vectors are the same to 1e-5.",
            table(
                ["call", "texts a CPU second"],
                [
                    [name, f"{len(texts) / np.median(times):.0f}"]
                    for name, times in encodings.items()
                ],
            ),
            table(
                ["ratio of seconds", "median [quartiles]"],
                [
                    [
                        "mic / sentence-transformers",
                        ratio(*(encodings[name] for name in reversed(calls))),
                    ]
                ],
            ),
        ],
        STEP_ROUNDS,
    )


if __name__ == "__main__":
    main()
