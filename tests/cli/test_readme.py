"""What the README says runs."""

import re
import shlex
from pathlib import Path

from sentences import answer, sentence

from mic.cli.main import parse
from mic.cli.sweep import parse_words
from mic.config.loading import load
from mic.sweep.sampling import planned_points
from mic.sweep.sweep_file import read_sweep

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


PYTHON = [block for language, block in BLOCKS if language == "python"]


def commands() -> list[list[str]]:
    """Every `mic ...` command of the README's shell blocks, as arguments."""
    shell = "".join(block for language, block in BLOCKS if language == "bash")
    lines = shell.replace("\\\n", " ").splitlines()
    typed = [line.rpartition("|")[2].strip() for line in lines if "mic " in line]
    return [shlex.split(line, comments=True)[1:] for line in typed]


def test_every_command_parses_and_every_config_it_names_loads():
    assert len(commands()) >= 2
    for arguments in commands():
        options = parse(arguments)
        if arguments[0] == "train" and not options.config.startswith("runs/"):  # made by others
            load(ROOT / options.config, *options.overrides)
        if arguments[0] == "sweep":
            read_sweep(ROOT / parse_words(options.words)[1])


def test_the_sweep_file_it_shows_is_one(tmp_path):
    (shown,) = (block for language, block in BLOCKS if language == "yaml" and "method:" in block)
    file = tmp_path / "mine.yaml"
    file.write_text(shown)
    sweep = read_sweep(file)
    assert (len(planned_points(sweep)), sweep.seeds) == (8, (0, 1))


def test_the_make_targets_it_names_exist():
    targets = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert {"quickstart", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_python_example_runs(encoder, tmp_path, monkeypatch, capsys):
    encoder.save(tmp_path / "runs/quickstart/encoder")
    monkeypatch.chdir(tmp_path)
    example, _ = PYTHON
    exec(example.replace("dim=64", "dim=16"), {})
    assert capsys.readouterr().out.startswith("(2, 16)")


def test_the_trainer_of_ones_own_runs_and_goes_on(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, example = PYTHON
    small = {
        "configs/quickstart.yaml": str(tiny_config),
        "batch_size=64": "batch_size=16",
        "every=100": "every=2",
        "max_steps=90": "max_steps=3",
        "[16, 64, 384]": "[4, 8, 32]",
    }
    for shown, tiny in small.items():
        assert shown in example
        example = example.replace(shown, tiny)
    names: dict = {}
    exec(example, names)
    assert names["trainer"].global_step == 3
    exec(example.replace("max_steps=3", "max_steps=5"), names)
    assert names["trainer"].global_step == 5
    saved = sorted(file.name[:13] for file in (tmp_path / "checkpoints").glob("*.ckpt"))
    assert saved == ["step-00000004", "step-00000005"]


def test_the_error_it_shows_is_the_error_one_gets(capsys, monkeypatch):
    from mic.cli.main import main

    monkeypatch.chdir(ROOT)
    command, expected = re.search(r"^\$ mic (.+)\n(mic: error: .+)$", README, re.MULTILINE).groups()
    assert main(shlex.split(command)) == 2
    assert capsys.readouterr().err.strip() == expected


def test_the_files_and_keys_it_names_exist():
    for path in re.findall(r"`((?:mic|tests|configs)/[\w/.]+)`", README):
        assert (ROOT / path).exists(), path
    for image in re.findall(r"!\[.*?\]\((.+?)\)", README):
        assert (ROOT / image).is_file(), image


def test_pairs_of_ones_own_train_by_the_command_shown(tmp_path, monkeypatch, model_folder):
    from mic.cli.main import main

    monkeypatch.chdir(tmp_path)
    rows = (f'{{"question": "{sentence(n)}", "answer": "{answer(n)}"}}\n' for n in range(100))
    Path("pairs.jsonl").write_text("".join(rows))
    (arguments,) = (arguments for arguments in commands() if "name=mine" in arguments)
    small = [
        f"encoder.name={model_folder}",
        "dims=[4,8]",
        "objective.align_layers=[1,2]",
        "trainer.max_steps=2",
        "trainer.batch_size=8",
    ]
    assert main([*arguments, *small]) == 0
    assert (tmp_path / "runs/mine/results.json").is_file()
