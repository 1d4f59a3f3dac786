"""The public names are there, and nobody pays for those that he does not use."""

import subprocess
import sys

import pytest

import mic

HEAVY = ("torch", "lightning", "transformers", "datasets", "wandb", "optuna", "matplotlib", "numpy")


def loaded_after(code: str) -> set[str]:
    """The heavy packages that a fresh process has loaded after some code."""
    shown = f"{code}\nimport sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    process = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return set(process.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import mic; mic.__version__; dir(mic)",
        "from mic.cli.main import build_parser; build_parser()",
        "import mic; mic.Config; mic.load_config",
    ],
)
def test_the_light_names_load_no_heavy_package(code):
    assert loaded_after(code) == set()


@pytest.mark.parametrize("name", mic.__all__)
def test_every_public_name_is_there(name):
    assert getattr(mic, name) is not None
    assert name in dir(mic)


def test_the_names_of_the_packages_are_those_of_their_modules():
    from mic.config import Config, load
    from mic.data import PairDataModule
    from mic.encoder import Encoder
    from mic.train import ExactResume, MICModule, train

    assert (mic.Config, mic.load_config, mic.PairDataModule) == (Config, load, PairDataModule)
    assert (mic.Encoder, mic.MICModule, mic.ExactResume) == (Encoder, MICModule, ExactResume)
    assert callable(train)


def test_an_unknown_name_is_refused_by_name():
    with pytest.raises(AttributeError, match="'Encoderr'"):
        mic.Encoderr  # noqa: B018
