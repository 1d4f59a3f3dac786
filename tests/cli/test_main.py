"""The commands of `mic`: each has a help text, and none imports what it does not need."""

import subprocess
import sys
from pathlib import Path

import pytest

from mic.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "numpy", "lightning", "transformers", "wandb", "datasets", "optuna", "matplotlib"}
REPORT = """
import sys
from mic.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as error:
    code = error.code
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["train", "configs/quickstart.yaml", "--print-config"],
        ["sweep", "--help"],
    ],
    ids=" ".join,
)
def test_help_and_the_resolved_config_need_no_heavy_library(arguments: list[str]) -> None:
    command = [sys.executable, "-c", REPORT, *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(ran.stderr.splitlines()[-1].split())
    assert "mic.config.schema" in modules
    assert not HEAVY & modules


def test_python_m_mic_cli_is_the_command() -> None:
    command = [sys.executable, "-m", "mic.cli", "--version"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("mic ")


def test_every_command_has_a_help_text(capsys: pytest.CaptureFixture[str]) -> None:
    names = [add_command.__name__.removeprefix("add_") for add_command in COMMANDS]
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    listed = capsys.readouterr().out
    for name in names:
        assert f"\n    {name} " in listed or f"\n    {name}\n" in listed
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: mic {name} ")


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "configs/quickstart.yaml", "--overwite"])
    assert "unrecognized arguments: --overwite" in capsys.readouterr().err
