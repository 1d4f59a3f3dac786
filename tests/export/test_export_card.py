"""What is said of an export: in its card, on the terminal and in config.json."""

import json

import yaml
from exports import DIMS, close, stock
from tiny_model import WIDTH

from mic.cli.main import main
from mic.encoder.encoder import Encoder
from mic.encoder.loading import SETTINGS
from mic.export.export import ExportOptions, export


def test_the_card_has_the_runs_figures_and_front_matter_that_yaml_reads(tiny_run, tmp_path):
    export(ExportOptions(str(tiny_run), tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    entries = yaml.safe_load(head)
    assert entries["library_name"] == "sentence-transformers"
    assert {"sentence-transformers", "matryoshka"} <= set(entries["tags"])
    assert "license" not in entries  # the base states none
    assert "base_model" not in entries  # a local folder has no name on the Hub
    results = json.loads((tiny_run / "results.json").read_text())
    for name, scores in {**results["meta"]["baselines"], "this model": results}.items():
        values = scores["found"]["ndcg@10"].values()
        label = name if name == "this model" else f"{name}, untrained"
        assert f"| {label} | " + " | ".join(f"{value:.1f}" for value in values) + " |" in body
    assert results["meta"]["data"]["train/pairs"][:16] in body
    assert f"{results['meta']['rows']['train']:,} rows" in body
    assert "| objective.align_layers | [1, 2] |" in body
    assert "effective rank" in body
    assert str(tmp_path.parent) not in card  # nothing of this machine
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["is_matryoshka"] is True
    assert config["matryoshka_dimensions"] == [*DIMS, WIDTH]


def test_a_narrow_export_names_the_widths_that_it_has(tiny_run, tmp_path, capsys):
    assert main(["export", str(tiny_run), "--to", str(tmp_path / "out"), "--dim", "8"]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["matryoshka_dimensions"] == [4, 8]
    capsys.readouterr()
    assert main(["export", str(tiny_run), "--to", str(tmp_path / "out"), "--dim", "7"]) == 0
    assert "7 is none of the widths it was trained at: [4, 8, 16, 32]" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # the other was replaced


def test_a_model_that_is_not_nested_is_said_to_be_none_with_what_cutting_costs(
    model_folder, tiny_run, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(["export", str(model_folder), "--to", str(out)]) == 0
    printed = capsys.readouterr().out
    card = (out / "README.md").read_text()
    for text in (printed, card):
        assert "No nested training is known of" in text
    assert "What that costs was not measured; --quality-of CONFIG measures it." in printed
    assert "is_matryoshka" not in json.loads((out / "config.json").read_text())
    tasks = ["--quality-of", str(tiny_run / "config.yaml")]
    assert main(["export", str(model_folder), "--to", str(out), *tasks]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "found, ndcg@10" in line)
    assert line in (out / "README.md").read_text()
    raw = json.loads((tiny_run / "results.json").read_text())["meta"]["baselines"]
    expected = raw["raw truncation"]["found"]["ndcg@10"]["16"]
    assert f"{expected:.1f} at 16" in line  # the same model, cut as it is
    # what was exported nested stays so
    export(ExportOptions(str(tiny_run), tmp_path / "nested"))
    export(ExportOptions(str(tmp_path / "nested"), tmp_path / "again", 8))
    assert "prefixes are embeddings" in (tmp_path / "again" / "README.md").read_text()


def test_prompts_of_a_model_are_kept(model_folder, tmp_path):
    Encoder.from_pretrained(model_folder).save(tmp_path / "model")
    prompts = {"prompts": {"query": "the cat "}, "default_prompt_name": "query"}
    (tmp_path / "model" / SETTINGS).write_text(json.dumps(prompts))
    export(ExportOptions(str(tmp_path / "model"), tmp_path / "out"))
    theirs = stock(tmp_path / "out")
    ours = Encoder.from_pretrained(model_folder)
    close(theirs.encode(["eats"]), ours.encode(["the cat eats"]))
    close(theirs.encode(["eats"], prompt=""), ours.encode(["eats"]))


def test_the_table_of_precisions_has_every_width_and_what_a_vector_takes(tiny_run, tmp_path):
    export(ExportOptions(str(tiny_run), tmp_path / "out", quality_of=tiny_run / "config.yaml"))
    card = (tmp_path / "out" / "README.md").read_text()
    results = json.loads((tiny_run / "results.json").read_text())
    for dim in (*DIMS, WIDTH):
        value = results["found"]["ndcg@10"][str(dim)]
        assert f"| {dim} | fp32 | {4 * dim} | {value:.1f} |" in card
        for kind, folder_bytes in (("int8", dim), ("binary", -(-dim // 8))):
            assert f"| {dim} | {kind} | {folder_bytes} |" in card
