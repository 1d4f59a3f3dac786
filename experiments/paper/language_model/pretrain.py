"""Make a raw language model without a hub: MiniLM's lower half, fresh blocks on it, masked tokens.

    python experiments/paper/language_model/pretrain.py \
        experiments/paper/language_model/minilm_lower.yaml [key=value ...]

Run again after a stop, it goes on from the step that it saved last, and ends with the same weights
as if nobody had stopped it. Writes an ordinary transformers folder and a record of cost and losses.
"""

import json
import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerBase,
)

from mic.config.schema_data import Source
from mic.console import bar, notice
from mic.data.sources.files import read_rows
from mic.encoder.loading import locate, no_progress_bars
from mic.errors import InputError
from mic.files import replacing, write_json
from mic.tracking.run_directory import package_versions

WINDOW = 64  # batches that are sorted by length together
KEPT = "stopped.pt"


@dataclass
class Pretraining:
    to: str = "???"  # the model's folder
    record: str = "???"  # what it cost and reached
    start: str = (
        "???"  # whose embeddings and lower blocks are taken: folder, Hub name, package:NAME
    )
    kept_layers: int = 2
    layers: int = 4
    seed: int = 0
    texts: dict[str, Source] = field(default_factory=dict)
    most_texts: int = 12_000  # of each corpus, drawn at random
    held_out: int = 1_000  # texts for the loss before and after
    max_length: int = 64
    masked: float = 0.15
    batch_size: int = 32
    max_steps: int = 1_500
    learning_rate: float = 5e-4
    warmup: float = 0.1
    weight_decay: float = 0.01
    save_every: int = 100


def main() -> int:
    if len(sys.argv) < 2:
        notice("usage: pretrain.py CONFIG [key=value ...]")
        return 2
    try:
        pretrain(read(Path(sys.argv[1]), sys.argv[2:]))
    except InputError as error:
        notice(str(error))
        return 2
    except KeyboardInterrupt:
        notice("stopped; the same command goes on from the last saved step")
        return 130
    return 0


def read(file: Path, overrides: Sequence[str] = ()) -> Pretraining:
    """A config over the defaults, and overrides over both."""
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(Pretraining),
            OmegaConf.load(file),
            OmegaConf.from_dotlist(overrides),
        )
        found = OmegaConf.to_object(merged)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except OmegaConfBaseException as error:
        raise InputError(f"{file}: {str(error).splitlines()[0]}") from None
    assert isinstance(found, Pretraining)
    if not found.texts:
        raise InputError(f"{file}: texts: none; name a corpus")
    return found


def pretrain(settings: Pretraining) -> None:
    """Train the model of the settings to its end and write it with its record."""
    to = Path(settings.to)
    if to.exists():
        raise InputError(f"{to}: is there already; remove it to make it anew")
    started, steps = time.monotonic(), settings.max_steps
    tokenizer = AutoTokenizer.from_pretrained(locate(settings.start))
    training, held_out = texts_of(settings)
    tokens = tokenizer(training, truncation=True, max_length=settings.max_length)["input_ids"]
    test = tokenizer(held_out, truncation=True, max_length=settings.max_length)["input_ids"]
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=settings.masked)

    model = fresh(settings)
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )
    work = to.with_name(f"{to.name}.partial")
    work.mkdir(parents=True, exist_ok=True)
    state = restore(work / KEPT, settings, model, optimizer)
    if state is None:
        before = held_out_loss(model, collate, test, settings)
        state = {"step": 0, "seconds": 0.0, "tokens": 0, "before": before, "losses": []}
    losses = state["losses"]
    loss = losses[-1][1] if losses else math.nan  # a running mean
    with bar("pretraining", steps, state["step"]) as advance:
        batches = order(tokens, settings, state["step"])
        since, seen = time.monotonic(), 0
        for step in range(state["step"], steps):
            batch = [tokens[row] for row in next(batches)]
            torch.manual_seed(settings.seed * 1_000_003 + step)  # masks and dropout of this step
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * schedule(step, steps, settings.warmup)
            model.train()
            found = loss_of(model, collate([{"input_ids": row} for row in batch]))
            found.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss = found.item() if math.isnan(loss) else 0.95 * loss + 0.05 * found.item()
            seen += sum(map(len, batch))
            speed = seen / (time.monotonic() - since)
            advance(1, f"loss {loss:.2f}, {speed:.0f} tokens/s,")
            if (step + 1) % settings.save_every == 0 or step + 1 == steps:
                state |= {
                    "step": step + 1,
                    "seconds": state["seconds"] + time.monotonic() - started,
                    "tokens": state["tokens"] + seen,
                    "losses": [*state["losses"], [step + 1, loss]],
                }
                started, since, seen = time.monotonic(), time.monotonic(), 0
                keep(work / KEPT, settings, model, optimizer, state)
    after = held_out_loss(model, collate, test, settings)
    finish(settings, model, tokenizer, work)
    write_json(
        Path(settings.record),
        {
            "held-out loss per masked token, nats": {
                "knowing only how often each token occurs": round(unigram(tokens, test), 3),
                "before": state["before"]["loss"],
                "after": after["loss"],
            },
            "held-out masked tokens found, %": {
                "before": state["before"]["found"],
                "after": after["found"],
            },
            "perplexity after": round(math.exp(after["loss"]), 1),
            "training loss by step": {str(step): round(loss, 2) for step, loss in state["losses"]},
            "texts": len(training),
            "texts held out": len(held_out),
            "steps": steps,
            "tokens seen": state["tokens"],
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "seconds": round(state["seconds"]),
            "threads": torch.get_num_threads(),
            "versions": {
                name: package_versions()[name] for name in ("python", "torch", "transformers")
            },
        },
    )
    notice(f"{to}: loss {state['before']['loss']} -> {after['loss']} on held-out texts")


def texts_of(settings: Pretraining) -> tuple[list[str], list[str]]:
    """The different texts of all corpora, most_texts of each at most: to train on, held out."""
    chosen: dict[str, None] = {}  # in order, each text once
    for number, source in enumerate(settings.texts.values()):
        rows = [row.get(column) for row in read_rows(source) for column in source.columns]
        different = list(dict.fromkeys(text for text in rows if isinstance(text, str) and text))
        drawn = shuffled(len(different), settings.seed + number)[: settings.most_texts]
        chosen |= dict.fromkeys(different[index] for index in drawn)
    texts = list(chosen)
    mixed = [texts[index] for index in shuffled(len(texts), settings.seed)]
    if len(mixed) < settings.held_out + settings.batch_size:
        raise InputError(f"texts: {len(mixed)} in all, too few to hold out {settings.held_out}")
    return mixed[settings.held_out :], mixed[: settings.held_out]


def shuffled(count: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def fresh(settings: Pretraining) -> BertForMaskedLM:
    """A BERT with the embeddings and lowest blocks of `start`; its other blocks are random."""
    folder = locate(settings.start)
    config = AutoConfig.from_pretrained(folder)
    if not settings.kept_layers <= min(settings.layers, config.num_hidden_layers):
        raise InputError(f"kept_layers={settings.kept_layers}: more than there are, or are wanted")
    config.num_hidden_layers = settings.layers
    torch.manual_seed(settings.seed)
    model = BertForMaskedLM(config)
    given = AutoModel.from_pretrained(folder, dtype=torch.float32).state_dict()
    lower = tuple(f"encoder.layer.{layer}." for layer in range(settings.kept_layers))
    taken = {
        name: value for name, value in given.items() if name.startswith(("embeddings.", *lower))
    }
    model.bert.load_state_dict(taken, strict=False)
    return model


def order(tokens: Sequence[Sequence[int]], settings: Pretraining, done: int) -> Iterator[list[int]]:
    """Batches of rows of like length, epoch after epoch, from batch `done` on."""
    size, epoch = settings.batch_size, 0
    per_epoch = len(tokens) // size
    if per_epoch == 0:
        raise InputError(f"texts: {len(tokens)}, fewer than batch_size={size}")
    while True:
        rows = shuffled(len(tokens), settings.seed + 7919 * (epoch + 1))[: per_epoch * size]
        windows = [rows[at : at + WINDOW * size] for at in range(0, len(rows), WINDOW * size)]
        alike = [row for window in windows for row in sorted(window, key=lambda r: len(tokens[r]))]
        for place in shuffled(per_epoch, settings.seed + 104729 * (epoch + 1)):
            if done > 0:
                done -= 1
            else:
                yield alike[place * size : (place + 1) * size]
        epoch += 1


def schedule(step: int, steps: int, warmup: float) -> float:
    """The share of the learning rate: a linear rise, then a linear fall to 0."""
    rise = max(1, round(warmup * steps))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))


def loss_of(model: BertForMaskedLM, batch: dict[str, Tensor]) -> Tensor:
    """The mean cross-entropy of the masked tokens, decoding no others (30,522 logits each)."""
    logits, labels = masked_logits(model, batch)
    return torch.nn.functional.cross_entropy(logits, labels)


def masked_logits(model: BertForMaskedLM, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    hidden = model.bert(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
    ).last_hidden_state
    wanted = batch["labels"] != -100  # the collator's mark of tokens that are not asked for
    return model.cls(hidden[wanted]), batch["labels"][wanted]


@torch.no_grad()
def held_out_loss(
    model: BertForMaskedLM,
    collate: DataCollatorForLanguageModeling,
    test: Sequence[Sequence[int]],
    settings: Pretraining,
) -> dict[str, float]:
    """Loss and share found of the masked tokens of held-out texts; the same masks every time."""
    torch.manual_seed(settings.seed)
    model.eval()
    loss, right, count = 0.0, 0, 0
    rows = sorted(test, key=len)
    for at in range(0, len(rows), settings.batch_size):
        batch = collate([{"input_ids": row} for row in rows[at : at + settings.batch_size]])
        logits, labels = masked_logits(model, batch)
        loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(dim=1) == labels).sum())
        count += len(labels)
    return {"loss": round(loss / count, 3), "found": round(100 * right / count, 1)}


def unigram(tokens: Sequence[Sequence[int]], test: Sequence[Sequence[int]]) -> float:
    """The held-out loss of a model that knows how often each token occurs, and nothing else."""
    size = 1 + max(max(row) for row in (*tokens, *test))
    counts = torch.ones(size, dtype=torch.float64)  # one more of each: none is impossible
    for row in tokens:
        counts += torch.bincount(torch.tensor(row[1:-1]), minlength=size)
    asked = torch.tensor([token for row in test for token in row[1:-1]])
    return float(-(counts / counts.sum()).log()[asked].mean())


def keep(
    file: Path,
    settings: Pretraining,
    model: BertForMaskedLM,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    held = {"settings": asked(settings), "state": state}
    held |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    with replacing(file) as partial:
        torch.save(held, partial)


def restore(
    file: Path,
    settings: Pretraining,
    model: BertForMaskedLM,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Any] | None:
    """Read back what `keep` wrote; None when there is nothing yet."""
    if not file.is_file():
        return None
    held = torch.load(file, weights_only=True)
    if held["settings"] != asked(settings):
        raise InputError(f"{file}: of other settings; remove {file.parent} to begin anew")
    model.load_state_dict(held["model"])
    optimizer.load_state_dict(held["optimizer"])
    state: dict[str, Any] = held["state"]
    return state


def asked(settings: Pretraining) -> str:
    """The settings that the weights follow from."""
    return json.dumps(
        OmegaConf.to_container(OmegaConf.structured(settings)) | {"record": "", "save_every": 0}
    )


def finish(
    settings: Pretraining,
    model: BertForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    work: Path,
) -> None:
    """Write the folder under another name, then rename it."""
    made = work / "model"
    shutil.rmtree(made, ignore_errors=True)
    with no_progress_bars():
        model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    made.rename(settings.to)
    shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(main())
