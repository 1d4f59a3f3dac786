"""What a step costs when the head alone learns: on embeddings that are looked up, behind the
backbone, and when all of the encoder learns."""

import os
import random
import tempfile
from pathlib import Path

from timing import agree, milliseconds, publish, ratio, seconds, table

from mic.config.loading import load
from mic.data.batch import Collate
from mic.data.indexed import Row
from mic.train.module import MICModule

CONFIG = Path(__file__).parents[2] / "configs/objective/mic_head.yaml"
PAIRS, WORDS = 64, 24
ROUNDS = 9
LOOKED_UP, BEHIND, WHOLE = "head, looked up", "head, behind the backbone", "the whole encoder"
WAYS = {
    LOOKED_UP: (),
    BEHIND: (
        "encoder.frozen=false",
        "encoder.freeze_embeddings=true",
        "encoder.freeze_layers=6",
    ),
    WHOLE: ("encoder.frozen=false",),
}
PAIRED = [(BEHIND, LOOKED_UP), (WHOLE, LOOKED_UP), (WHOLE, BEHIND)]


def main() -> None:
    os.environ["MIC_CACHE"] = tempfile.mkdtemp()
    modules = {name: MICModule(load(CONFIG, *ways)) for name, ways in WAYS.items()}
    tokenizer = modules[WHOLE].encoder.tokenizer
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 3)
    draw = random.Random(0)
    texts = [" ".join(draw.choices(words, k=WORDS)) for _ in range(2 * PAIRS)]
    rows = [Row((query, answer)) for query, answer in zip(texts[::2], texts[1::2], strict=True)]
    collates = {}
    for name, module in modules.items():
        module.fill_teacher(texts)
        collates[name] = Collate(module.encoder.tokenize, module.prepare)

    def step(name: str) -> float:
        """Tokenize, encode and differentiate one batch."""
        modules[name].zero_grad(set_to_none=True)
        loss = modules[name](collates[name](rows)).total
        loss.backward()
        return float(loss.detach())

    for module in modules.values():  # without dropout the three must give one value
        module.eval()
    agree(step(LOOKED_UP), step(BEHIND), 1e-3)  # fp16 on disk
    agree(step(BEHIND), step(WHOLE))
    for module in modules.values():
        module.train()
    length = collates[WHOLE](rows).columns[0]["input_ids"].shape[1]
    times = seconds({name: lambda name=name: step(name) for name in WAYS}, ROUNDS)
    publish(
        "head_speed",
        "A step when the head alone learns",
        [
            f"all-MiniLM-L6-v2 with a head of 384 numbers by configs/objective/mic_head.yaml, "
            f"{PAIRS} pairs of {length} + {length} tokens, the cached teacher's included: texts to "
            "tokens, forward and backward, no optimiser. The three give one loss without dropout "
            "(1e-3, the embeddings on disk being fp16).",
            table(["what learns", "ms"], [[name, milliseconds(times[name])] for name in WAYS]),
            table(
                ["ratio", "median [quartiles]"],
                [[f"{a} / {b}", ratio(times[a], times[b])] for a, b in PAIRED],
            ),
        ],
        ROUNDS,
    )


if __name__ == "__main__":
    main()
