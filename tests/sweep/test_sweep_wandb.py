"""The engine W&B: its own checks take our sweep files, and its agent starts the right trials."""

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trials
import wandb
import yaml
from fake_wandb import KEY, serving
from wandb.apis.public.sweeps import _validate_config_and_fill_distribution
from wandb.cli.cli import agent as agent_command
from wandb_files import offline_folders

from mic.cli.main import main
from mic.config.loading import load
from mic.config.schema import Config
from mic.errors import InputError, RunError
from mic.sweep.engines.wandb import METHODS, place_trial, register_sweep, wandb_content
from mic.sweep.sweep_file import read_sweep
from mic.tracking.wandb import mirror as wandb_mirror

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("configs/sweep/*.yaml"))
MIC = ["${env}", "mic", "train"]
TORCHRUN = ["${env}", "torchrun", "--standalone", "--nproc-per-node", "2", "-m", "mic.cli", "train"]
VALUES = {
    "objective.gamma": 1e-05,
    "objective.symmetric": True,
    "objective.align_layers": [1, 2],
    "encoder.projection": None,
    "trainer.schedule": "linear",
    "objective": {"variance": {"weight": 0.25}},
    "seed": 3,
}
Started = Callable[..., Any]
PATIENCE = 600.0  # seconds after which a test that hangs is ended

pytestmark = pytest.mark.usefixtures("no_wandb_account")


def sweep_file(config: Path, start: list[str] = MIC, **content: Any) -> Path:
    file = config.parent / "sweep.yaml"
    usual = {
        "method": "random",
        "run_cap": 8,
        "metric": {"name": "val/sts/spearman/d4", "goal": "maximize"},
        "parameters": {"objective.gamma": {"min": 0.1, "max": 2.0}},
        "command": [*start, str(config), "${args_no_hyphens}"],
    }
    given = {key: item for key, item in (usual | content).items() if item is not None}
    file.write_text(yaml.safe_dump(given))
    return file


@pytest.fixture
def violations() -> Callable[[dict[str, Any]], list[str]]:
    """W&B's strict check, which its server makes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("sweeps")
        from sweeps.config import schema_violations_from_proposed_config
    return schema_violations_from_proposed_config


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_wandb_takes_every_sweep_file_as_it_is(violations, file):
    content = yaml.safe_load(file.read_text())  # as W&B reads it
    assert violations(content) == []
    assert _validate_config_and_fill_distribution(content)["parameters"].keys() == (
        content["parameters"].keys()
    )
    if content["method"] in METHODS:
        assert wandb_content(read_sweep(file)) == content


def test_wandb_takes_what_we_write_its_way(violations, tiny_config):
    parameters = {
        "objective.gamma": {"min": 1, "max": 2.5},
        "objective.dims": {"values": [[4, 8], [4, 8, 16]]},
        "objective": {"parameters": {"variance": {"parameters": {"weight": {"value": 0.1}}}}},
        "trainer.warmup": {"distribution": "q_uniform", "min": 0.1, "max": 0.3, "q": 0.1},
    }
    metrics = [{"name": "val/sts/spearman/d4", "goal": "maximize"}]
    file = sweep_file(
        tiny_config, TORCHRUN, parameters=parameters, seeds=[0, 1], metric=None, metrics=metrics
    )
    content = wandb_content(read_sweep(file))
    assert violations(content) == []
    _validate_config_and_fill_distribution(content)
    assert content["metric"] == metrics[0]
    assert content["parameters"] == {
        **parameters,
        "objective.gamma": {"min": 1, "max": 2.5, "distribution": "uniform"},
        "seed": {"values": [0, 1]},
    }
    assert content.keys() == {"method", "run_cap", "metric", "parameters", "command"}


def test_another_base_is_that_of_the_command(tiny_config, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(tiny_config.read_text())
    sweep = read_sweep(sweep_file(tiny_config, TORCHRUN), other)
    assert wandb_content(sweep)["command"] == [*TORCHRUN, str(other), "${args_no_hyphens}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"method": "qmc"}, "method qmc: W&B does grid or random or bayes; take one of them"),
        ({"method": "custom"}, "method custom: W&B does grid or random or bayes"),
        (
            {"early_terminate": {"type": "median", "min_iter": 2}},
            "early_terminate median: W&B does type: hyperband",
        ),
        (
            {"metric": None, "metrics": [{"name": f"val/sts/spearman/d{d}"} for d in (4, 8)]},
            "metrics val/sts/spearman/d4, val/sts/spearman/d8: W&B goes by one",
        ),
    ],
)
def test_what_wandb_cannot_do_is_refused(tiny_config, content, message):
    sweep = read_sweep(sweep_file(tiny_config, **content))
    with pytest.raises(InputError) as caught:
        wandb_content(sweep)
    assert message in str(caught.value)
    assert str(caught.value).endswith("or leave out --engine wandb")


def test_a_registered_sweep_is_what_the_file_says(tiny_config, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr("mic.tracking.wandb.server.PROBE", PATIENCE)
    words = [*MIC, str(tiny_config), "logging.entity=us", "${args_no_hyphens}"]
    sweep = read_sweep(sweep_file(tiny_config, name="mine", seeds=[0, 1], command=words))
    before = dict(os.environ)
    with serving() as fake:
        monkeypatch.setenv("WANDB_BASE_URL", fake.address)
        assert register_sweep(sweep).endswith(" us/mic/sweep1")
        fake.doubts = ["eta: a doubt of the server's"]
        other = sweep_file(tiny_config, project="p", entity="e", method="grid", parameters=GRID)
        started = register_sweep(read_sweep(other))
        wandb.teardown()
    assert os.environ == before | {"WANDB_BASE_URL": fake.address}
    contents = [wandb_content(sweep), wandb_content(read_sweep(other))]
    sent = [yaml.safe_load(sent_sweep["config"]) for sent_sweep in fake.sweeps]
    assert sent == [_validate_config_and_fill_distribution(content) for content in contents]
    written = Path(sweep.base.runs) / "sweep1"  # where its reports look for it
    assert read_sweep(written / "sweep.yaml", base=written / "base.yaml").metrics == sweep.metrics
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "eta: a doubt of the server's" in printed.err
    assert all(line.startswith("mic: W&B: ") for line in printed.err.splitlines())

    program, command, *options = started.split()
    assert (program, command) == ("wandb", "agent")
    known = agent_command.make_context("agent", options).params
    assert known["forward_signals"]
    assert known["term_timeout"] == 300
    assert known["sweep_id"] == "e/p/sweep2"


GRID = {"objective.gamma": {"values": [0, 1]}}


def test_without_a_key_or_a_server_one_line_says_so(tiny_config, monkeypatch):
    sweep = read_sweep(sweep_file(tiny_config))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=r"^W&B: no key for 127.0.0.1:1; `wandb login` or set "):
        register_sweep(sweep)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(RunError, match=r"^W&B: http://127.0.0.1:1: .*; try again later$"):
        register_sweep(sweep)


def test_a_run_of_no_agent_stays_where_it_is(tiny_config, monkeypatch):
    config = load(tiny_config)
    assert place_trial(config) is config
    monkeypatch.setenv("WANDB_RUN_ID", "run1")  # which names it for W&B alone
    assert place_trial(config) is config


def test_an_agents_run_is_placed_once(tiny_config, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_RUN_ID", "run1")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    config = place_trial(load(tiny_config))
    assert (config.runs, config.name) == (str(tmp_path / "runs/sweep1"), "run1")
    assert config.logging.wandb == "online"
    assert place_trial(config) == config
    assert place_trial(load(tiny_config, "logging.wandb=offline")).logging.wandb == "offline"


@pytest.fixture
def agent(tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    """W&B's own agent, told to run one trial of a sweep: `sweep1` its id, `run1` the trial's."""
    from wandb import wandb_agent

    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # the agent sets them
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")

    def started(start: list[str], process: type | None = None) -> Any:
        if process is not None:
            monkeypatch.setattr(wandb_agent, "AgentProcess", process)
        agent = wandb_agent.Agent(api=None, queue=None, sweep_id="sweep1")
        agent._sweep_command = wandb_content(read_sweep(sweep_file(tiny_config, start)))["command"]
        args = {key: {"value": value} for key, value in VALUES.items()}
        command = {"type": "run", "run_id": "run1", "program": "", "args": args}
        agent._command_run(json.loads(json.dumps(command)))
        return agent._run_processes["run1"]

    return started


def test_a_run_that_wandb_ended_early_does_not_come_back(tmp_path, monkeypatch):
    calls: list[str] = []
    monkeypatch.setattr(wandb_mirror, "PATIENCE", (PATIENCE, 1.0))
    monkeypatch.setattr("mic.tracking.wandb.server.PROBE", PATIENCE)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    with serving() as fake:
        monkeypatch.setenv("WANDB_BASE_URL", fake.address)
        mirror = wandb_mirror.start_wandb_run(Config(), tmp_path, "online")
        monkeypatch.setattr(mirror.run, "mark_preempting", lambda: calls.append("preempting"))
        fake.stopped.add(mirror.run.id)
        mirror.preempting()
        assert calls == []
        fake.stopped.clear()  # SLURM's doing
        mirror.preempting()
        assert calls == ["preempting"]
        monkeypatch.setattr("mic.tracking.wandb.server.PROBE", 0.2)
        fake.silent.set()
        mirror.preempting()  # one cannot know
        assert calls == ["preempting"] * 2
        fake.silent.clear()
        mirror.finish()
        wandb.teardown()


def check_values(run: Path) -> None:
    """That a run was trained with the values of its trial, and is known by the trial's id."""
    config = load(run / "config.yaml")
    objective = config.objective
    assert (objective.gamma, objective.symmetric, objective.align_layers) == (1e-05, True, [1, 2])
    assert (objective.variance.weight, config.trainer.schedule) == (0.25, "linear")
    assert (config.encoder.projection, config.seed) == (None, 3)
    assert json.loads((run / "run.json").read_text())["id"] == "run1"
    assert (run / "results.json").is_file()


def test_a_trial_of_the_agent_is_saved_goes_on_and_is_done_once(
    agent, tmp_path, monkeypatch, capfd
):
    from mic.train.module import MICModule

    words = agent(MIC, SimpleNamespace).command
    assert words[:3] == ["/usr/bin/env", "mic", "train"]
    assert words[4:7] == [
        *("objective.gamma=1e-05", "objective.symmetric=True", "objective.align_layers=[1, 2]")
    ]
    step = MICModule.training_step

    def told_to_stop(module: MICModule, *batch: Any) -> Any:
        if module.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(module, *batch)

    run = tmp_path / "runs/sweep1/run1"
    with monkeypatch.context() as patched:
        patched.setattr(MICModule, "training_step", told_to_stop)
        assert main(words[2:]) == 143
    assert not (run / "results.json").exists()
    assert main(words[2:]) == 0
    segments = json.loads((run / "run.json").read_text())["segments"]
    assert [segment["step"] for segment in segments] == [0, 2]
    check_values(run)
    # offline-run-TIME-ID, and -1 where two began in the same second
    assert [folder.name.split("-")[3] for folder in offline_folders(run)] == ["run1", "run1"]
    capfd.readouterr()
    assert main(words[2:]) == 0
    assert capfd.readouterr().err.endswith(
        f"{run}: has finished; nothing to do (--overwrite trains it anew)\n"
    )
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["sweep1"]


@pytest.mark.slow
def test_a_trial_of_several_processes_is_one_run(agent, trial_server, tmp_path, monkeypatch):
    """The whole command, as the agent starts it."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name, value in trial_server.items():
        monkeypatch.setenv(name, value)
    torchrun = ["python", trials.__file__, "--nproc-per-node=2"]  # in its place: the same, sooner
    assert agent(["${env}", *torchrun, "train"]).wait(PATIENCE) == 0
    run = tmp_path / "runs/sweep1/run1"
    check_values(run)
    segments = json.loads((run / "run.json").read_text())["segments"]
    assert [segment["ranks"] for segment in segments] == [2]
    assert len(offline_folders(run)) == 1
