"""The model card: what a reader of the folder should know before they use it."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from mic import __version__
from mic.export.card_quality import cost, precision, quality, scores_of
from mic.export.card_training import geometry, objective, training_data, versions
from mic.export.lineage import base_of, licence_of
from mic.export.record import Facts
from mic.export.source import Source
from mic.export.words import listed
from mic.files import write_text
from mic.report.tables import numeric_markdown


def card(facts: Facts) -> str:
    """README.md of the folder: front matter for the Hub, then the sections."""
    parts = [
        front_matter(facts),
        f"# {title(facts)}",
        *opening(facts),
        *use(facts),
        *quality(facts),
        *precision(facts),
        *([] if facts.source.run is None else geometry(facts.source, facts.dims)),
        *training(facts.source),
        *checked(facts),
        *limits(facts),
    ]
    return "\n\n".join(parts) + "\n"


def write_card(folder: Path, text: str) -> None:
    write_text(folder / "README.md", text)


def title(facts: Facts) -> str:
    return f"{facts.source.name}, {facts.dim} numbers" if facts.dim else facts.source.name


def front_matter(facts: Facts) -> str:
    """What the Hub reads: only what is known."""
    base = base_of(facts.source)
    tags = ["sentence-transformers", "feature-extraction", "sentence-similarity"]
    tags += ["matryoshka", "mic"] if facts.source.nested else []
    told = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": tags,
        "license": licence_of(facts.source),
        "base_model": base,
    }
    known = {key: value for key, value in told.items() if value is not None}
    return f"---\n{yaml.safe_dump(known, sort_keys=False)}---"


def opening(facts: Facts) -> Iterator[str]:
    source, limit = facts.source, facts.dims[-1]
    what = f"Texts to vectors of {limit} numbers: {source.part}."
    if source.nested:
        widths = ", ".join(map(str, facts.dims))
        yield (
            f"{what} It was trained so that prefixes are embeddings themselves: keep the first "
            f"{widths} numbers, then scale to length 1."
        )
        if limit not in source.dims:
            yield f"{limit} is none of the widths that it was trained at ({listed(source.dims)})."
        return
    yield what
    yield (
        "**No nested training is known of this model**: no prefix of its vectors was trained to "
        "be an embedding, and cutting them is raw truncation."
    )
    yield from [cost(*one) for one in scores_of(facts)] or ["What that costs was not measured."]


def use(facts: Facts) -> Iterator[str]:
    """Lines to copy."""
    limit = facts.dims[-1]
    name = facts.repo or "FOLDER"
    narrow = next((dim for dim in reversed(facts.dims[:-1]) if dim <= 64), None)
    lines = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f'model = SentenceTransformer("{name}")',
        f"vectors = model.encode(texts)  # {limit} numbers, of length 1",
    ]
    if narrow:
        lines += [
            "",
            f'model = SentenceTransformer("{name}", truncate_dim={narrow})',
            "vectors = model.encode(texts, normalize_embeddings=True)  # cut, then scaled",
        ]
    yield "## Use"
    yield "```python\n" + "\n".join(lines) + "\n```"
    if narrow:
        yield (
            "With `truncate_dim` do not leave out `normalize_embeddings=True`: the folder scales "
            "its vectors to length 1, and what is cut from those is shorter."
        )
    yield f"With mic: `mic encode {name}" + (f" --dim {narrow}" if narrow else "") + "`."
    if facts.source.nested and len(facts.dims) > 1:
        yield (
            "`config.json` names the widths (`is_matryoshka`, `matryoshka_dimensions`), so that "
            "vLLM takes `dimensions` in a request."
        )
    if facts.onnx is not None:
        yield (
            "`onnx/model.onnx` takes the tokenizer's tensors and gives `last_hidden_state` and "
            f"`sentence_embedding` (length 1); it differs by at most {facts.onnx:.1e}."
        )
    if facts.prompts.get("prompts"):
        yield "Prompts are those of the model; mic adds none, and the figures here are without."


def training(source: Source) -> Iterator[str]:
    run = source.run
    base = base_of(source) or (Path(run.config.encoder.name).name if run else None)
    yield "## Training"
    if run is None:
        yield (
            f"How it was trained is not known here: see {base or 'the model it was made of'}. "
            f"Licence: {licence_of(source) or 'not stated'}."
        )
        return
    yield (
        f"Begun from {base} (licence: {licence_of(source) or 'not stated'}); {source.step:,} steps "
        f"of {run.config.trainer.batch_size} rows, seed {run.config.seed}, texts of at most "
        f"{source.encoder.max_length} tokens, {source.encoder.pooling} pooling."
    )
    yield from training_data(run)
    yield from objective(run)
    yield from versions(run)


def checked(facts: Facts) -> Iterator[str]:
    yield "## Checked"
    yield (
        f"Made by `mic export` {__version__}. "
        f"The folder was read by {facts.parity.reader} and its vectors of a dozen texts compared "
        "with those of mic's encoder before it was written"
        + (f" as {facts.dtype}" if facts.dtype != "fp32" else "")
        + "; largest difference of a coordinate:"
    )
    largest = facts.parity.largest
    yield numeric_markdown(
        ["numbers", *map(str, largest)], [["", *(f"{x:.1e}" for x in largest.values())]]
    )


def limits(facts: Facts) -> Iterator[str]:
    source = facts.source
    told = [f"Texts are cut after {source.encoder.max_length} tokens."]
    if source.run is not None:
        told.append(
            "Figures are of the tasks above, and of one run; other texts may fare otherwise."
        )
        told.append("It knows the languages and the subjects of its data, and their biases.")
    if source.run is not None and not source.ended:
        told.append("These weights themselves were not scored, unless a table says so.")
    if facts.dtype == "fp16":
        told.append("Weights are stored in 16 bits and computed with in 32.")
    if facts.dim:
        told.append(f"The other {source.encoder.width - facts.dim} numbers are not in this folder.")
    yield "## Limits"
    yield "\n".join(f"- {line}" for line in told)
