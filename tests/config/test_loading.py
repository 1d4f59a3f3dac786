"""Configs: the order of merging, every refusal with its cure, a light import."""

import subprocess
import sys
from pathlib import Path

import pytest

from mic.cli import main
from mic.config.loading import find_config, keys, load, to_yaml
from mic.config.schema import (
    Config,
    EvaluationConfig,
    ObjectiveConfig,
    TeacherConfig,
    TrainerConfig,
)
from mic.errors import InputError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    file
    for file in (*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("experiments/*/*.yaml"))
    # not a sweep's, nor a suite's
    if not any(f"\n{key}:" in f"\n{file.read_text()}" for key in ("method", "sts"))
)
HEAVY = ("torch", "lightning", "transformers", "datasets", "matplotlib", "wandb", "scipy")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A config that says nothing."""
    return write(tmp_path / "file.yaml", "")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def refusal(path: str | Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load(path, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_empty_file_gives_the_defaults(file: Path) -> None:
    assert load(file) == Config(
        objective=ObjectiveConfig(dims=Config().dims),
        evaluation=EvaluationConfig(dims=Config().dims),
    )


def test_later_layers_win(tmp_path: Path) -> None:
    write(tmp_path / "first.yaml", "{name: first, runs: first, seed: 1, dims: [1]}")
    write(tmp_path / "second.yaml", "{name: second, runs: second, seed: 2}")
    file = write(
        tmp_path / "file.yaml", "{base: [first.yaml, second.yaml], name: file, runs: file}"
    )
    config = load(file, "name=override", "name=last")
    values = config.name, config.runs, config.seed, config.dims, config.trainer.max_steps
    assert values == ("last", "file", 2, [1], Config().trainer.max_steps)


def test_bases_nest_and_start_at_the_file_that_names_them(tmp_path: Path) -> None:
    write(tmp_path / "a" / "lowest.yaml", "{name: lowest, seed: 3, runs: lowest}")
    write(tmp_path / "a" / "b" / "middle.yaml", "{base: ../lowest.yaml, runs: middle}")
    file = write(tmp_path / "file.yaml", "{base: a/b/middle.yaml, name: file}")
    config = load(file)
    assert (config.name, config.runs, config.seed) == ("file", "middle", 3)


def test_lists_are_replaced_and_sections_merged(file: Path) -> None:
    write(file, "{dims: [1, 2, 3], trainer: {warmup: 0.5}}")
    config = load(file, "dims=[4]", "trainer.max_steps=7")
    assert (config.dims, config.trainer.warmup, config.trainer.max_steps) == ([4], 0.5, 7)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_cycle_of_bases_is_refused(tmp_path: Path, length: int) -> None:
    for number in range(length):
        write(tmp_path / f"{number}.yaml", f"base: {(number + 1) % length}.yaml")
    assert "0.yaml: is its own base" in refusal(tmp_path / "0.yaml")


def test_dims_are_followed_unless_set(file: Path) -> None:
    config = load(file, "dims=[8, 24]", "evaluation.dims=[12]")
    assert config.objective.dims == [8, 24]
    assert config.evaluation.dims == [12]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("trainer.learning_rate=1e-05", 1e-05),
        ("trainer.learning_rate=2e-4", 2e-4),
        ("trainer.learning_rate=1", 1.0),
        ("trainer.compile=True", True),
        ("trainer.compile=False", False),
        ("dims=[1, 2]", [1, 2]),
        ("objective.align_layers=[1, 'output']", [1, "output"]),
        ("encoder.projection=null", None),
        ("encoder.projection=None", None),
        ("logging.group=None", None),
        ("encoder.name=None", "None"),  # a text, where null may not be
        ("teacher={'kind': 'none', 'folder': None}", TeacherConfig()),
        ("trainer={'learning_rate': 1e-05}", TrainerConfig(learning_rate=1e-05)),
        ("encoder.sha256=" + "12" * 32, "12" * 32),
        ("name=a=b", "a=b"),
    ],
)
def test_values_as_shells_and_sweeps_write_them(file: Path, override: str, value: object) -> None:
    node: object = load(file, override)
    for key in override.partition("=")[0].split("."):
        node = getattr(node, key)
    assert node == value
    assert type(node) is type(value)


@pytest.mark.parametrize(
    ("content", "cure"),
    [
        ("trainer: {max_step: 3}", "'trainer.max_step'; did you mean 'trainer.max_steps'?"),
        ("trianer: {max_steps: 3}", "'trianer'; did you mean 'trainer'?"),
        ("learning_rate: 1", "'learning_rate'; did you mean 'trainer.learning_rate'?"),
        ("objective: {cv: {wait: 1}}", "'objective.cv.wait'; did you mean 'objective.cv.weight'?"),
        ("qqq: 1", "'qqq'; `mic train --help` lists all keys"),
    ],
)
def test_an_unknown_key_names_its_origin_and_the_nearest(
    file: Path, content: str, cure: str
) -> None:
    assert refusal(write(file, content)) == f"{file}: unknown key {cure}"


def test_an_unknown_override_names_itself_and_the_nearest_key(file: Path) -> None:
    assert refusal(file, "max_stps=3") == (
        "override 'max_stps=3': unknown key 'max_stps'; did you mean 'trainer.max_steps'?"
    )


@pytest.mark.parametrize(
    ("content", "key", "reason"),
    [
        ("trainer: {max_steps: many}", "trainer.max_steps", "'many'"),
        ("trainer: {max_steps: 1.5}", "trainer.max_steps", "'1.5'"),
        ("trainer: {compile: perhaps}", "trainer.compile", "'perhaps'"),
        ("trainer: {precision: fp64}", "trainer.precision", "'bf16'"),
        ("trainer: {max_steps: null}", "trainer.max_steps", "None"),
        ("name: [a]", "name", "'a'"),
        ("dims: 64", "dims", "for example [16, 64]"),
        ("dims: {a: 1}", "dims.a", "for example [16, 64]"),
        ("dims: [16, many]", "dims", "'many'"),
        ("objective: {align_layers: [1.5]}", "objective.align_layers", "'1.5'"),
        ("trainer: 3", "trainer", "set the keys in it"),
        ("data: {train: {a: {columns: text}}}", "data.train.a.columns", "for example [16, 64]"),
        ("data: [1]", "data", "set the keys in it"),
        ("data: {train: [a.csv]}", "data.train", "set the keys in it"),
        ("data: {train: {a: a.csv}}", "data.train.a", "set the keys in it"),
        ("data: !!set {a}", "data", "'set'"),
        ("name: ${nobody}", "name", "'nobody'"),
        ("{name: '${runs}', runs: '${name}'}", "name", "Recursive"),
        ("name: '${'", "name", "'${'"),
    ],
)
def test_a_wrong_type_names_file_key_and_value(
    file: Path, content: str, key: str, reason: str
) -> None:
    message = refusal(write(file, content))
    assert message.startswith(f"{file}: {key}: ")
    assert reason in message


@pytest.mark.parametrize("text", ["trainer", "=3", "name=[1", "name=${"])
def test_an_unreadable_override_is_named(file: Path, text: str) -> None:
    assert refusal(file, text).startswith(f"override {text!r}: ")


@pytest.mark.parametrize("key", ["dims", "objective.dims", "evaluation.dims"])
@pytest.mark.parametrize(
    ("dims", "cure"),
    [
        ("[64, 32]", "widths must increase; did you mean [32, 64]?"),
        ("[8, 8]", "widths must increase; did you mean [8]?"),
        ("[0, 8]", "width 0 is below 1; remove it"),
    ],
)
def test_widths_that_do_not_increase_are_refused(
    file: Path, key: str, dims: str, cure: str
) -> None:
    assert refusal(file, f"{key}={dims}") == f"{key} {dims}: {cure}"


def bounded() -> list[tuple[str, str]]:
    """Every bounded key with a value just outside of each of its bounds."""
    samples = []
    for name, _, item in keys(Config):
        sample = name.replace("NAME", "a")
        bounds = {bound: item.metadata.get(bound) for bound in ("least", "above", "below")}
        if bounds["least"] is not None:
            samples.append((sample, str(bounds["least"] - 1)))
        samples += [
            (sample, str(bounds[end])) for end in ("above", "below") if bounds[end] is not None
        ]
    return samples


@pytest.mark.parametrize(("key", "value"), bounded())
def test_a_value_out_of_bounds_is_refused(file: Path, key: str, value: str) -> None:
    entry = key.partition(".a.")[0] + ".a."
    needed = [  # by the entry that the key belongs to: two paths, say, where it has two files
        f"{name.replace('NAME', 'a')}=x"
        for name, _, item in keys(Config)
        if name.replace("NAME", "a").startswith(entry) and item.default == "???"
    ]
    assert refusal(file, *needed, f"{key}={value}").startswith(f"{key}={value}")


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e400"])
def test_a_number_that_is_not_finite_is_refused(file: Path, value: str) -> None:
    assert refusal(file, f"objective.gamma={value}").endswith("must be a finite number")


@pytest.mark.parametrize("name", ["a/b", "..", ".", "''", "/tmp"])
def test_a_run_has_one_folder_of_its_own(file: Path, name: str) -> None:
    assert "one folder name" in refusal(file, f"name={name}")


def test_all_missing_values_are_named(file: Path) -> None:
    write(file, "data: {train: {pairs: {columns: [a]}, more: {}}}")
    expected = "data.train.more.path, data.train.pairs.path: not set; give it a value"
    assert refusal(file) == f"{file}: {expected}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name: [1, 2", "not readable as YAML"),
        (b"name: a\nname: b", "duplicate key name"),
        (b"name: caf\xe9", "not readable as YAML: 'utf-8' codec"),
        (b"- a\n- b", "no `key: value` lines"),
        (b"3", "no `key: value` lines"),
        (b"base: nowhere.yaml", "base 'nowhere.yaml': no such file"),
        (b"base: 3", "base 3: expected a file"),
        (b"base: [3]", "base [3]: expected a file"),
    ],
)
def test_a_file_that_is_no_config_is_named(file: Path, content: bytes, reason: str) -> None:
    file.write_bytes(content)
    message = refusal(file)
    assert message.startswith(f"{file}: ")
    assert reason in message


def test_a_folder_or_missing_file_is_named_with_one_to_start_from(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere.yaml"):
        assert refusal(path) == (f"config {path}: no such file; start from configs/quickstart.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_of_the_repository_loads_and_comes_back(path: Path, tmp_path: Path) -> None:
    config = load(path)
    assert load(write(tmp_path / "again.yaml", to_yaml(config))) == config


def test_the_quickstart_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("configs/quickstart.yaml") == find_config("quickstart.yaml")


def test_print_config_prints_the_resolved_config(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["train", str(tiny_config), "--print-config", "seed=3"]) == 0
    printed = write(tmp_path / "printed.yaml", capsys.readouterr().out)
    assert "${" not in printed.read_text()
    assert load(printed) == load(tiny_config, "seed=3")


def test_every_key_has_help_and_the_command_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main.main(["train", "--help"])
    printed = capsys.readouterr().out
    for name, _, item in keys(Config):
        assert f"  {name} (" in printed
        assert item.metadata["help"]
        assert item.metadata["help"] in printed


@pytest.mark.parametrize(
    "code",
    [
        "import mic",
        "from mic.config.loading import load; load('configs/quickstart.yaml')",
        "import mic.distributed.launcher",
        "from mic.cli.main import main; main(['--help'])",
    ],
)
def test_no_heavy_library_is_loaded_before_it_is_needed(code: str) -> None:
    watched = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {code}"
    command = [sys.executable, "-c", watched]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    modules = ran.stdout.splitlines()[-1].split()
    assert "mic" in modules
    assert not set(HEAVY) & set(modules)
