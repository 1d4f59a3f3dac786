"""The W&B mirror: what an offline run holds, and that a failing server does not harm a run."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
import wandb
from fake_wandb import KEY, serving
from run_logs import LINES, log_everything, logged
from wandb_files import offline_folders, read

from mic.config.schema import Config, LoggingConfig
from mic.tracking.loggers import build_logger
from mic.tracking.wandb import mirror
from mic.tracking.wandb.server import missing_key

ONLINE = Config(name="mine", logging=LoggingConfig(wandb="online"))


pytestmark = pytest.mark.usefixtures("no_wandb_account")


def test_an_offline_run_holds_every_value_picture_and_histogram(tmp_path):
    config = Config(name="mine", seed=3)
    config.logging = LoggingConfig(
        wandb="offline", project="p", entity="e", group="g", job_type="j", tags=["t"]
    )
    logger = build_logger(config, tmp_path)
    assert logger.has_pictures
    (wandb_mirror,) = logger.mirrors
    settings = wandb_mirror.run.settings  # so long a silent server is waited for
    assert (settings.init_timeout, settings.finish_timeout) == mirror.PATIENCE
    logger.alert("collapse of the first 4", "its geometry is not a number")
    log_everything(logger, tmp_path)

    (folder,) = offline_folders(tmp_path)
    run = read(folder)
    for step, line in LINES:
        for name, value in line.items():
            assert run.values(name)[step] == value
    figures = {"correlation/map/d4", "figures/map"}
    names = {name for _, line in LINES for name in line}
    assert run.keys == names | figures | {"geometry/variance", "trainer/global_step", "epoch"}
    assert run.step_metrics == {("*", "trainer/global_step")}
    assert run.kind("geometry/variance") == {"histogram"}
    (counts,) = run.values("geometry/variance.values").values()
    assert sum(counts) == 3
    assert len(counts) <= 512
    for name in figures:
        assert run.kind(name) == {"image-file"}
        (path,) = run.values(f"{name}.path").values()
        assert (folder / "files" / path).is_file()
    assert {name: run.config[name] for name in asdict(config)} == asdict(config)
    assert run.id == json.loads((tmp_path / "run.json").read_text())["id"]
    assert len(run.id) == 8
    about = {name: run.about[name] for name in ("project", "entity", "run_group", "job_type")}
    assert about == {"project": "p", "entity": "e", "run_group": "g", "job_type": "j"}
    assert (run.about["tags"], run.about["display_name"]) == (["t"], "mine seed=3")
    assert run.alerts[0]["title"] == "collapse of the first 4"
    assert run.exit_code == 1  # without results.json it has not finished


def test_without_a_key_a_run_is_kept_offline_which_is_said_once(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    monkeypatch.setenv("WANDB_RUN_ID", "sweep123")
    log_everything(build_logger(ONLINE, tmp_path), tmp_path)
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err == (
        "mic: W&B: no key for wandb.example; `wandb login` or set WANDB_API_KEY: kept offline in "
        f"{tmp_path / 'wandb'}; later: mic sync {tmp_path}\n"
    )
    (folder,) = offline_folders(tmp_path)
    assert read(folder).id == "sweep123" == json.loads((tmp_path / "run.json").read_text())["id"]


def test_a_key_is_found_where_wandb_finds_it_and_a_bad_one_is_named(monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.example:8080")
    netrc = Path(os.environ["NETRC"])
    netrc.write_text(f"machine other.example login user password {KEY}\n")
    assert "no key for wandb.example:8080" in (missing_key() or "")
    netrc.write_text(f"machine wandb.example:8080 login user password {KEY}\n")
    assert missing_key() is None
    wandb.teardown()
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert "WANDB_API_KEY" in (missing_key() or "")


@contextmanager
def refusing() -> Iterator[str]:
    with closing(socket.socket()) as taken:  # bound, so nobody else answers; never listening
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def hanging() -> Iterator[str]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("server", [refusing, hanging])
def test_a_server_that_refuses_or_hangs_costs_no_line(
    tmp_path, monkeypatch, capfd, server: Callable
):
    with server() as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        log_everything(build_logger(ONLINE, tmp_path), tmp_path)  # waits for no answer
        wandb.teardown()  # as at the end of the process
    assert [line["step"] for line in logged(tmp_path)] == [step for step, _ in LINES]
    message = capfd.readouterr().err
    assert message.count("\n") == 1
    assert f"kept offline in {tmp_path / 'wandb'}; later: mic sync {tmp_path}" in message
    (folder,) = offline_folders(tmp_path)
    assert read(folder).values("train/loss") == {1: 3.0, 2: 2.0}


@pytest.mark.parametrize("dies", ["before the run begins", "while it runs"])
def test_a_server_that_falls_silent_costs_no_line(tmp_path, monkeypatch, capfd, dies):
    begins = dies == "while it runs"
    monkeypatch.setattr(mirror, "PATIENCE", (300.0 if begins else 1.0, 1.0))
    with serving() as fake:
        monkeypatch.setenv("WANDB_BASE_URL", fake.address)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        if not begins:
            fake.silent.set()
        logger = build_logger(ONLINE, tmp_path)
        assert logger.has_pictures == begins
        fake.silent.set()
        log_everything(logger, tmp_path)
        assert not logger.has_pictures
        logger.write({"train/loss": 1.0}, steps=3)  # nobody is there any more
        wandb.teardown()
    assert [line["step"] for line in logged(tmp_path)] == [*(step for step, _ in LINES), 3]
    message = capfd.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("mic: W&B: ")
    assert message.endswith(f"later: mic sync {tmp_path}\n")


def test_a_run_online_sends_all_goes_on_after_a_resume_and_tells_nobody_the_key(
    tmp_path, monkeypatch, capfd
):
    with serving() as fake:
        monkeypatch.setenv("WANDB_BASE_URL", fake.address)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        log_everything(build_logger(ONLINE, tmp_path), tmp_path)
        resumed = build_logger(ONLINE, tmp_path)
        resumed.write({"train/loss": 1.0}, steps=3)
        resumed.finish()
        wandb.teardown()
    (rows,) = fake.rows.values()
    losses = [
        (row["trainer/global_step"], row["train/loss"]) for row in rows if "train/loss" in row
    ]
    assert losses == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert any("media/images/correlation/map/d4" in name for name in fake.uploads)
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in files if KEY.encode() in file.read_bytes()]
