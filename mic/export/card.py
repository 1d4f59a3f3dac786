"""Write the model card, README.md of an exported folder."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from mic import __version__
from mic.export.card_quality import (
    cutting_cost,
    known_scores,
    precision_section,
    width_section,
)
from mic.export.card_training import (
    data_section,
    geometry_section,
    objective_section,
    versions_section,
)
from mic.export.lineage import base_model, licence
from mic.export.parity import PROBES
from mic.export.record import ExportRecord
from mic.export.source import ModelSource
from mic.files import write_text
from mic.report.tables import numeric_markdown


def model_card(record: ExportRecord) -> str:
    """README.md of the folder: front matter for the Hub, then the sections."""
    parts = [
        front_matter(record),
        f"# {card_title(record)}",
        *introduction(record),
        *usage_section(record),
        *width_section(record),
        *precision_section(record),
        *([] if record.source.run is None else geometry_section(record.source, record.dims)),
        *training_section(record.source),
        *parity_section(record),
        *limits_section(record),
    ]
    return "\n\n".join(parts) + "\n"


def write_card(folder: Path, text: str) -> None:
    write_text(folder / "README.md", text)


def card_title(record: ExportRecord) -> str:
    return f"{record.source.name}, {record.dim} dimensions" if record.dim else record.source.name


def front_matter(record: ExportRecord) -> str:
    """The YAML that the Hub reads, with the keys that are known."""
    base = base_model(record.source)
    tags = ["sentence-transformers", "feature-extraction", "sentence-similarity"]
    tags += ["matryoshka", "mic"] if record.source.nested else []
    entries = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": tags,
        "license": licence(record.source),
        "base_model": base,
    }
    known = {key: value for key, value in entries.items() if value is not None}
    return f"---\n{yaml.safe_dump(known, sort_keys=False)}---"


def introduction(record: ExportRecord) -> Iterator[str]:
    source, limit = record.source, record.dims[-1]
    what = f"Texts to embeddings of {limit} dimensions: {source.description}."
    if source.nested:
        widths = ", ".join(map(str, record.dims))
        yield (
            f"{what} It was trained so that prefixes are embeddings themselves: keep the first "
            f"{widths} dimensions, then normalise to length 1."
        )
        if limit not in source.dims:
            trained = ", ".join(map(str, source.dims))
            yield f"{limit} is none of the widths that it was trained at ({trained})."
        return
    yield what
    yield (
        "**No nested training is known of this model**: no prefix of its embeddings was "
        "trained to be an embedding, and cutting them is raw truncation."
    )
    yield from [cutting_cost(*scores) for scores in known_scores(record)] or [
        "What that costs was not measured."
    ]


def usage_section(record: ExportRecord) -> Iterator[str]:
    """Code to copy."""
    limit = record.dims[-1]
    name = record.repo or "FOLDER"
    narrow = next((dim for dim in reversed(record.dims[:-1]) if dim <= 64), None)
    lines = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f'model = SentenceTransformer("{name}")',
        f"embeddings = model.encode(texts)  # {limit} dimensions, of length 1",
    ]
    if narrow:
        lines += [
            "",
            f'model = SentenceTransformer("{name}", truncate_dim={narrow})',
            "embeddings = model.encode(texts, normalize_embeddings=True)  # cut, then normalised",
        ]
    yield "## Use"
    yield "```python\n" + "\n".join(lines) + "\n```"
    if narrow:
        yield (
            "With `truncate_dim` do not leave out `normalize_embeddings=True`: the folder "
            "normalises its embeddings to length 1, and what is cut from those is shorter."
        )
    yield f"With mic: `mic encode {name}" + (f" --dim {narrow}" if narrow else "") + "`."
    if record.source.nested and len(record.dims) > 1:
        yield (
            "`config.json` names the widths (`is_matryoshka`, `matryoshka_dimensions`), so that "
            "vLLM takes `dimensions` in a request."
        )
    if record.onnx is not None:
        yield (
            "`onnx/model.onnx` takes the tokenizer's tensors and gives `last_hidden_state` and "
            f"`sentence_embedding` (length 1); it differs by at most {record.onnx:.1e}."
        )
    if record.prompts:
        yield "Prompts are those of the model; the scores here are without."


def training_section(source: ModelSource) -> Iterator[str]:
    run = source.run
    base = base_model(source) or (Path(run.config.encoder.name).name if run else None)
    yield "## Training"
    if run is None:
        yield (
            f"How it was trained is not known here: see {base or 'the model it was made of'}. "
            f"Licence: {licence(source) or 'not stated'}."
        )
        return
    yield (
        f"Begun from {base} (licence: {licence(source) or 'not stated'}); {source.step:,} steps "
        f"of {run.config.trainer.batch_size} rows, seed {run.config.seed}, texts of at most "
        f"{source.encoder.max_length} tokens, {source.encoder.pooling} pooling."
    )
    yield from data_section(run)
    yield from objective_section(run)
    yield from versions_section(run)


def parity_section(record: ExportRecord) -> Iterator[str]:
    yield "## Checked"
    yield (
        f"Made by `mic export` {__version__}. "
        f"The folder was read by {record.parity.reader} and its embeddings of {len(PROBES)} texts, "
        f"with each of its prompts, compared with those of {record.parity.reference} before it was "
        "written"
        + (f" as {record.dtype}" if record.dtype != "fp32" else "")
        + "; largest difference of a coordinate:"
    )
    largest = record.parity.largest
    yield numeric_markdown(
        ["dimensions", *map(str, largest)], [["", *(f"{x:.1e}" for x in largest.values())]]
    )


def limits_section(record: ExportRecord) -> Iterator[str]:
    source = record.source
    lines = [
        f"Texts are cut after {source.encoder.max_length} tokens."
        if source.encoder.max_length
        else "Texts are not cut, however long."
    ]
    if source.run is not None:
        lines.append(
            "Scores are of the tasks above, and of one run; other texts may score otherwise."
        )
        lines.append("It knows the languages and the subjects of its data, and their biases.")
    if source.run is not None and not source.ended:
        lines.append("These weights themselves were not scored, unless a table says so.")
    if record.dtype == "fp16":
        lines.append("Weights are stored in 16 bits and computed with in 32.")
    if record.dim:
        lines.append(
            f"The other {source.encoder.width - record.dim} dimensions are not in this folder."
        )
    yield "## Limits"
    yield "\n".join(f"- {line}" for line in lines)
