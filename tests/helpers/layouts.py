"""Tiny random models in the layouts of published ones, written by transformers and
sentence-transformers."""

import json
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentences import ANIMALS, THINGS, VERBS

WIDTH, LAYERS = 32, 3
WORDS = (
    "the",
    "a",
    "and",
    "that",
    "query",
    "passage",
    "search",
    ":",
    "?",
    *ANIMALS,
    *VERBS,
    *THINGS,
)
TEXTS = [
    "the cat sees a house",
    "The CAT Sees A House",
    "",
    "cat",
    "the dog and a bird that sees the house and the cat " * 12,
    "a bird ?",
]
SMALL = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
OFFSET = {**SMALL, "type_vocab_size": 1, "max_position_embeddings": 66}  # 2 before the first token
DECODER = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
# the configuration of a family, and the marks that its tokenizer sets: begin and end of a text
FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[str, str]]] = {
    "bert": ("BertConfig", SMALL, ("[CLS]", "[SEP]")),
    "mpnet": ("MPNetConfig", {**SMALL, "max_position_embeddings": 66}, ("<s>", "</s>")),
    "roberta": ("RobertaConfig", OFFSET, ("<s>", "</s>")),
    "xlm-roberta": ("XLMRobertaConfig", OFFSET, ("<s>", "</s>")),
    "camembert": ("CamembertConfig", OFFSET, ("<s>", "</s>")),
    "distilbert": (
        "DistilBertConfig",
        {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 48},
        ("[CLS]", "[SEP]"),
    ),
    "electra": ("ElectraConfig", {**SMALL, "embedding_size": 16}, ("[CLS]", "[SEP]")),
    "deberta-v2": ("DebertaV2Config", {**SMALL, "relative_attention": True}, ("[CLS]", "[SEP]")),
    "modernbert": (
        "ModernBertConfig",
        {**SMALL, "global_attn_every_n_layers": 2},
        ("[CLS]", "[SEP]"),
    ),
    "nomic-bert": ("NomicBertConfig", SMALL, ("[CLS]", "[SEP]")),
    "t5": (
        "T5Config",
        {"d_model": WIDTH, "num_layers": LAYERS, "num_heads": 4, "d_kv": 8, "d_ff": 48},
        ("", "</s>"),
    ),
    "mt5": (
        "MT5Config",
        {"d_model": WIDTH, "num_layers": LAYERS, "num_heads": 4, "d_kv": 8, "d_ff": 48},
        ("", "</s>"),
    ),
    "qwen3": ("Qwen3Config", DECODER, ("", "</s>")),
    "qwen2": ("Qwen2Config", DECODER, ("", "</s>")),
    "gemma3": ("Gemma3TextConfig", DECODER, ("<s>", "</s>")),
    "mistral": ("MistralConfig", DECODER, ("<s>", "</s>")),
    "llama": ("LlamaConfig", DECODER, ("<s>", "</s>")),
}


def write_tokenizer(
    folder: Path, begin: str, end: str, lower: bool = True, side: str = "right"
) -> int:
    """A tokenizer of whole words; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", *filter(None, (begin, end)), "<mask>"]
    if begin == "<s>":  # where RoBERTa has them
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = [*special, *WORDS, *(word.capitalize() for word in WORDS), *(w.upper() for w in WORDS)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(filter(None, (begin, "$A", end))),
        special_tokens=[(mark, vocabulary[mark]) for mark in (begin, end) if mark],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token=end,
        padding_side=side,
        model_max_length=64,
        **({"cls_token": begin, "bos_token": begin, "sep_token": end} if begin else {}),
    ).save_pretrained(folder)
    return len(vocabulary)


def write_backbone(folder: Path, family: str, lower: bool = True) -> Path:
    """A random transformer of a family with its tokenizer, as transformers saves it."""
    import transformers

    name, settings, (begin, end) = FAMILIES[family]
    decoder = settings.keys() >= {"num_key_value_heads"}
    size = write_tokenizer(folder, begin, end, lower, "left" if decoder else "right")
    padding = {"pad_token_id": 1 if begin == "<s>" else 0}
    config = getattr(transformers, name)(vocab_size=size, **{**padding, **settings})
    torch.manual_seed(1)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def chain(
    folder: Path, *modules: Callable[[int], Any], family: str = "bert", **options: Any
) -> Path:
    """A backbone, then modules (made for the width before them), saved by sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    raw = write_backbone(folder.with_name(f"{folder.name}-raw"), family, options.pop("lower", True))
    lower_case = options.pop("do_lower_case", False)
    parts: list[Any] = [Transformer(str(raw), do_lower_case=lower_case)]
    torch.manual_seed(2)
    for module in modules:
        parts.append(module(parts[-1].get_embedding_dimension()))
        if not hasattr(parts[-1], "get_embedding_dimension"):  # Normalize and LayerNorm
            width = parts[-2].get_embedding_dimension()
            parts[-1].get_embedding_dimension = lambda width=width: width
    for part in parts:
        part.__dict__.pop("get_embedding_dimension", None)
    model = SentenceTransformer(modules=parts, device="cpu", **options)
    model.save_pretrained(str(folder), create_model_card=False)
    shutil.rmtree(raw)
    return folder


def pooling(*modes: str, include_prompt: bool = True) -> Callable[[int], Any]:
    from sentence_transformers.sentence_transformer.modules import Pooling

    return lambda width: Pooling(width, modes, include_prompt=include_prompt)


def dense(width: int | None = None, activation: Any = None, residual: bool = False) -> Any:
    from sentence_transformers.sentence_transformer.modules import Dense

    return lambda before: Dense(
        before,
        width or before,
        activation_function=activation or torch.nn.Identity(),
        use_residual=residual,
    )


def module(name: str, *arguments: Any, **options: Any) -> Callable[[int], Any]:
    """A module of sentence-transformers whose first argument is the width before it."""
    from sentence_transformers.sentence_transformer import modules

    return lambda width: getattr(modules, name)(width, *arguments, **options)


def normalize(_: int) -> Any:
    from sentence_transformers.sentence_transformer.modules import Normalize

    return Normalize()


PROMPTS = {"query": "query : ", "document": "passage : ", "search": "search : "}


def static(folder: Path) -> Path:
    """StaticEmbedding: a vector for each token, averaged."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    raw = folder.with_name(f"{folder.name}-raw")
    write_tokenizer(raw, "[CLS]", "[SEP]")
    torch.manual_seed(3)
    tokens = StaticEmbedding(Tokenizer.from_file(str(raw / "tokenizer.json")), embedding_dim=WIDTH)
    SentenceTransformer(modules=[tokens], device="cpu").save_pretrained(
        str(folder), create_model_card=False
    )
    shutil.rmtree(raw)
    return folder


def old_folders(folder: Path) -> Path:
    """The layout of 2019: the transformer in 0_Transformer, a Dense in pytorch_model.bin."""
    from safetensors.torch import load_file

    chain(folder, pooling("mean"), dense(24, torch.nn.Tanh()))
    inner = folder / "0_Transformer"
    inner.mkdir()
    for file in list(folder.iterdir()):
        if file.is_file() and file.name not in (
            "modules.json",
            "config_sentence_transformers.json",
        ):
            file.rename(inner / file.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    for entry in modules:
        kind = entry["type"].rsplit(".", 1)[-1]
        entry["type"] = f"sentence_transformers.models.{kind}"
    (folder / "modules.json").write_text(json.dumps(modules))
    head = folder / "2_Dense"
    torch.save(load_file(head / "model.safetensors"), head / "pytorch_model.bin")
    (head / "model.safetensors").unlink()
    return folder


# the layouts of published models, each with one that has it
LAYOUTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    **{
        f"plain {family}": (
            "a folder of transformers",
            lambda f, name=family: write_backbone(f, name),
        )
        for family in FAMILIES
    },
    "mean, normalized": ("all-MiniLM-L6-v2", lambda f: chain(f, pooling("mean"), normalize)),
    "first token": ("bge-base-en", lambda f: chain(f, pooling("cls"), normalize)),
    "last token": (
        "Qwen3-Embedding",
        lambda f: chain(f, pooling("lasttoken"), normalize, family="qwen3", prompts=PROMPTS),
    ),
    "largest of each coordinate": ("", lambda f: chain(f, pooling("max"))),
    "mean over the root of the length": ("", lambda f: chain(f, pooling("mean_sqrt_len_tokens"))),
    "weighted mean": (
        "SGPT",
        lambda f: chain(f, pooling("weightedmean"), family="mistral"),
    ),
    "concatenated poolings": ("", lambda f: chain(f, pooling("cls", "mean"))),
    "Dense with Tanh": (
        "LaBSE, distiluse",
        lambda f: chain(f, pooling("cls"), dense(24, torch.nn.Tanh()), normalize),
    ),
    "two Dense": (
        "EmbeddingGemma",
        lambda f: chain(f, pooling("mean"), dense(48), dense(WIDTH), normalize, family="gemma3"),
    ),
    "Dense behind T5": (
        "sentence-t5, gtr",
        lambda f: chain(f, pooling("mean"), dense(24), normalize, family="t5"),
    ),
    "Dense with residual": ("", lambda f: chain(f, pooling("mean"), dense(residual=True))),
    "Dense after Normalize": ("", lambda f: chain(f, pooling("mean"), normalize, dense(24))),
    "LayerNorm": ("", lambda f: chain(f, pooling("mean"), module("LayerNorm"))),
    "CNN": ("", lambda f: chain(f, module("CNN", 24, [1, 3]), pooling("mean"))),
    "lower-cased by its settings": (
        "",
        lambda f: chain(f, pooling("mean"), lower=False, do_lower_case=True),
    ),
    "prompts": ("e5", lambda f: chain(f, pooling("mean"), normalize, prompts=PROMPTS)),
    "a prompt before every text": (
        "",
        lambda f: chain(f, pooling("mean"), prompts=PROMPTS, default_prompt_name="search"),
    ),
    "prompts that pooling leaves out": (
        "INSTRUCTOR",
        lambda f: chain(f, pooling("mean", include_prompt=False), prompts=PROMPTS),
    ),
    "a width of its own": (
        "",
        lambda f: chain(f, pooling("mean"), normalize, truncate_dim=16),
    ),
    "static embeddings": ("static-retrieval-mrl-en-v1", static),
    "folders of 2019": ("distiluse", old_folders),
}


def with_model_type(kind: str) -> Callable[[Path], Path]:
    """A folder that sentence-transformers saved from a model of another kind."""

    def write(folder: Path) -> Path:
        chain(folder, pooling("mean"))
        file = folder / "config_sentence_transformers.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": kind}))
        return folder

    return write


def with_module(kind: str) -> Callable[[Path], Path]:
    """A folder whose last module is of a class that is not for dense embeddings."""

    def write(folder: Path) -> Path:
        chain(folder, pooling("mean"))
        modules = json.loads((folder / "modules.json").read_text())
        modules[-1]["type"] = kind
        (folder / "modules.json").write_text(json.dumps(modules))
        return folder

    return write


def with_architecture(name: str) -> Callable[[Path], Path]:
    """A folder of transformers whose model has another head."""

    def write(folder: Path) -> Path:
        write_backbone(folder, "bert")
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "architectures": [name]}))
        return folder

    return write


# what is refused: the kind, one that is published, its folder, and words of the message
REFUSED: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "sparse": ("SPLADE", with_model_type("SparseEncoder"), "a sparse model"),
    "sparse, by its modules": (
        "",
        with_module("sentence_transformers.sparse_encoder.models.SpladePooling"),
        "a sparse model",
    ),
    "multi-vector": ("", with_model_type("MultiVectorEncoder"), "PyLate"),
    "multi-vector, of PyLate": ("", with_module("pylate.models.Dense.Dense"), "PyLate"),
    "multi-vector, of Stanford": ("ColBERT v2", with_architecture("HF_ColBERT"), "PyLate"),
    "cross-encoder": ("", with_model_type("CrossEncoder"), "a cross-encoder"),
    "cross-encoder, a folder of transformers": (
        "ms-marco-MiniLM",
        with_architecture("BertForSequenceClassification"),
        "a cross-encoder",
    ),
    "one route for queries, one for documents": (
        "",
        with_module("sentence_transformers.base.modules.router.Router"),
        "one route for queries",
    ),
    "images and texts": (
        "clip-ViT-B-32",
        with_module("sentence_transformers.models.CLIPModel"),
        "images and texts",
    ),
}


def models_page() -> str:
    """docs/models.md: the layouts that tests/encoder/test_layouts.py builds, and the refused."""
    words = (
        "mic reads a model as sentence-transformers does. Of each layout a test builds a tiny "
        "random model and shows that its vectors are those of sentence-transformers to 1e-6 (as "
        "they come, as queries and as documents; short, long, empty and mixed-case texts), that it "
        "trains, and that its export, read by sentence-transformers alone, gives the trained "
        "encoder's vectors to 1e-6, with its modules, prompts, length and lower-casing kept."
    )
    lines = [
        "# Which models work",
        "",
        textwrap.fill(words, 110),
        "",
        "| layout | as in |",
        "|---|---|",
        *(f"| {name} | {example} |" for name, (example, _) in LAYOUTS.items()),
        "",
        "Refused, with what to use instead:",
        "",
        "| kind | as in |",
        "|---|---|",
        *(f"| {name} | {example} |" for name, (example, _, _) in REFUSED.items()),
        "",
        "Written by `python tests/helpers/layouts.py > docs/models.md`.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(models_page())
