"""The queue of a sweep: many workers, each run once; what the optimiser sees; who is gone."""

import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import optuna
import postgres
import pytest
import yaml
from optuna.storages import BaseStorage

from mic.sweep.queue import heartbeat
from mic.sweep.queue.heartbeat import (
    Heartbeat,
    LivenessWatch,
    is_alive,
    process_identity,
    this_worker,
)
from mic.sweep.queue.queue import Queue
from mic.sweep.queue.state import Attempt, QueuedSetting, SweepState, sweep_state
from mic.sweep.queue.storage import open_storage, retry_while_away
from mic.sweep.sweep_file import Sweep, read_sweep
from mic.sweep.worker import release_lost_attempts

AXES = {"objective.gamma": {"values": [0, 1, 2]}, "objective.t": {"values": [1, 2]}}
COMMAND = ("mic", "train", "configs/quickstart.yaml")


@pytest.fixture
def sweep_of(tmp_path) -> Callable[..., Path]:
    def write(**content) -> Path:
        whole = {
            "method": "grid",
            "metric": {"name": "val/pairs/ndcg@10/d16", "goal": "maximize"},
            "parameters": {
                "objective.gamma": {"values": [0, 1, 2]},
                "objective.t": {"values": [1, 2]},
            },
            "seeds": [0, 1],
            "command": [
                "mic",
                "train",
                "configs/quickstart.yaml",
                f"runs={tmp_path}",
                "${args_no_hyphens}",
            ],
            **content,
        }
        file = tmp_path / "sweep.yaml"
        given = {key: item for key, item in whole.items() if item is not None}
        file.write_text(yaml.safe_dump(given, sort_keys=False))
        return file

    return write


def queue_of(file: Path) -> Queue:
    sweep = read_sweep(file)
    return Queue(sweep, open_storage(sweep.folder, None))


def value(point: dict, seed: int) -> float:
    return -((point["objective.gamma"] - 1.3) ** 2) + point["objective.t"] + seed


def labour(sweep: Sweep, url: str | None, number: int, folder: Path) -> None:
    """What a worker does, without training; it kills itself state and then."""
    dice = random.Random(number)
    queue, me = Queue(sweep, open_storage(sweep.folder, url)), this_worker()
    watch = LivenessWatch(me)
    while True:
        state = queue.state()
        release_lost_attempts(queue, state, watch)
        if queue.settle(state):
            continue
        trial = state.next_trial(one_seed_first=False)
        if trial is None:
            if not queue.draw(state) and not state.running_attempts():
                return
            time.sleep(0.01)
            continue
        attempt = queue.claim(trial, me)
        if attempt is None:
            continue
        lock = folder / f"{trial.name}.lock"
        if lock.exists() and is_alive(lock.read_text()):
            (folder / "violated").write_text(trial.name)
        lock.write_text(me.process)
        time.sleep(dice.random() * 0.02)
        if number < 4 or dice.random() < 0.25:  # the first four with their first run
            os.kill(os.getpid(), signal.SIGKILL)
        lock.unlink()
        queue.end(attempt, "finished", (value(trial.setting.point, trial.seed),))


def hire(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def all_once(sweep: Sweep, url: str | None, folder: Path) -> SweepState:
    """Workers that die are replaced until the sweep is done; then every run has finished once."""
    workers = {hire(lambda n=n: labour(sweep, url, n, folder)) for n in range(4)}
    killed = 0
    while workers:
        pid, status = os.wait()
        workers.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, -signal.SIGKILL)
        if code:
            killed += 1
            seed = 100 + killed
            workers.add(hire(lambda n=seed: labour(sweep, url, n, folder)))
    assert killed
    assert not (folder / "violated").exists()
    state = Queue(sweep, open_storage(sweep.folder, url)).state()
    assert {trial.state for trial in state.trials} == {"finished"}
    for trial in state.trials:
        assert [attempt.outcome for attempt in trial.attempts].count("finished") == 1
        assert trial.values == (value(trial.setting.point, trial.seed),)
    for setting in state.settings:
        assert setting.values == pytest.approx((value(setting.point, 0) + 0.5,))
    assert (
        sum(attempt.outcome == "lost" for trial in state.trials for attempt in trial.attempts)
        == killed
    )
    return state


def test_of_four_workers_that_are_killed_each_run_is_finished_once(sweep_of, tmp_path):
    state = all_once(read_sweep(sweep_of()), None, tmp_path)
    points = [tuple(setting.point.values()) for setting in state.settings]
    assert sorted(points) == [(gamma, t) for gamma in (0, 1, 2) for t in (1, 2)]


@pytest.mark.slow
def test_the_same_in_postgresql_with_settings_that_are_drawn(sweep_of, tmp_path):
    axes = {
        "objective.gamma": {"min": 0.0, "max": 3.0},
        "objective.t": {"distribution": "int_uniform", "min": 1, "max": 2},
    }
    sweep = read_sweep(sweep_of(method="bayes", parameters=axes, run_cap=12))
    with postgres.serving() as server:
        state = all_once(sweep, server.url, tmp_path)
    assert len(state.settings) == 6
    assert all(0 <= setting.point["objective.gamma"] <= 3 for setting in state.settings)


def run_all(queue: Queue, values: Callable[[dict], tuple[float, ...]]) -> SweepState:
    """One worker, to the end."""
    while True:
        state = queue.state()
        if queue.settle(state):
            continue
        trial = state.next_trial(one_seed_first=False)
        if trial is not None:
            queue.end(queue.claim(trial, this_worker()), "finished", values(trial.setting.point))
        elif not queue.draw(state):
            return state


class Breaks:
    """Has a storage's connection break state and then, before or after what was asked is done."""

    def __init__(self, storage: BaseStorage, dice: random.Random) -> None:
        self.dice, self.count, self.chance = dice, 0, 0.1
        for name in (name for name in dir(BaseStorage) if name[:4] in ("get_", "set_", "crea")):
            setattr(storage, name, self.breaking(getattr(storage, name)))

    def breaking(self, function: Callable) -> Callable:
        def call(*arguments, **options):
            draw = self.dice.random()
            if draw < self.chance:
                self.count += 1
                raise away()
            answer = function(*arguments, **options)
            if draw > 1 - self.chance:
                self.count += 1
                raise away()
            return answer

        return call


@pytest.mark.parametrize("method", ["grid", "bayes"])
def test_a_connection_that_breaks_anywhere_costs_nothing(sweep_of, monkeypatch, method):
    monkeypatch.setattr("mic.sweep.queue.storage.PAUSE", 0.0)
    monkeypatch.setattr(
        heartbeat, "LEASE", 0.05
    )  # what is left of a broken ask is soon cleared away
    more = {} if method == "grid" else {"run_cap": 12}
    sweep = read_sweep(sweep_of(method=method, **more))
    storage = open_storage(sweep.folder, None)
    breaks = Breaks(storage, random.Random(1))
    queue, watch, tried = Queue(sweep, storage), LivenessWatch(this_worker()), 0
    while True:
        state = queue.state()
        release_lost_attempts(queue, state, watch)
        if queue.settle(state):
            continue
        trial = state.next_trial(one_seed_first=False)
        if trial is not None:
            tried += 1
            queue.end(
                queue.claim(trial, this_worker()),
                "finished",
                (value(trial.setting.point, trial.seed),),
            )
        elif not queue.draw(state) and all(setting.state != "open" for setting in state.settings):
            break
    breaks.chance = 0
    state = queue.state()
    assert breaks.count > 20
    assert tried == len(state.trials) == 12
    for trial in state.trials:
        assert [attempt.outcome for attempt in trial.attempts] == ["finished"]
    for setting in state.settings:
        assert setting.values == pytest.approx((value(setting.point, 0) + 0.5,))


def test_bayes_learns_from_the_means(sweep_of):
    """Settings after the first ten, which are drawn at random, lie nearer to the best."""
    axes = {"objective.gamma": {"min": 0.0, "max": 100.0}}
    queue = queue_of(sweep_of(method="bayes", parameters=axes, run_cap=80, seeds=[0, 1]))
    state = run_all(queue, lambda point: (-((point["objective.gamma"] - 40) ** 2),))
    off = [abs(setting.point["objective.gamma"] - 40) for setting in state.settings]
    assert len(off) == 40
    assert sum(off[20:]) / 20 < 0.8 * 26  # 26 is how far off a random one is in the mean


def test_hyperband_ends_the_poor_and_never_the_best(sweep_of):
    """Of twenty settings, one after the other, most of the poorer half are ended early."""
    axes = {"objective.gamma": {"values": list(range(20))}}
    early = {"type": "hyperband", "min_iter": 1, "eta": 3}
    steps = ["trainer.max_steps=270", "trainer.validate_every=10"]
    file = sweep_of(parameters=axes, seeds=[0], early_terminate=early, command=None)
    text = file.read_text() + yaml.safe_dump({"command": [*COMMAND, *steps, "${args_no_hyphens}"]})
    file.write_text(text)
    sweep = read_sweep(file)
    queue = Queue(sweep, open_storage(file.parent / "journal", None))
    order = random.Random(0).sample(range(20), 20)
    while queue.draw(queue.state()):
        trial = queue.state().next_trial(one_seed_first=True)
        attempt = queue.claim(trial, this_worker())
        worth = float(order[trial.setting.label])
        ended = any(queue.report(trial.setting, step, worth) for step in range(1, 27))
        queue.end(attempt, "pruned" if ended else "finished", (worth,))
        queue.settle(queue.state())
    states = {order[setting.label]: setting.state for setting in queue.state().settings}
    assert states[19] == "finished"
    assert sum(states[worth] == "pruned" for worth in range(10)) >= 5
    assert sum(states[worth] == "pruned" for worth in range(10, 20)) < 5


def test_several_metrics_have_their_own_directions(sweep_of):
    names = ("val/pairs/ndcg@10/d16", "val/loss")
    metrics = [{"name": names[0], "goal": "maximize"}, {"name": names[1], "goal": "minimize"}]
    axes = {"objective.gamma": {"min": 0.0, "max": 1.0}}
    queue = queue_of(
        sweep_of(method="custom", metric=None, metrics=metrics, parameters=axes, run_cap=20)
    )
    run_all(queue, lambda point: (point["objective.gamma"], point["objective.gamma"] ** 2))
    assert [direction.name for direction in queue.settings_study.directions] == [
        "MAXIMIZE",
        "MINIMIZE",
    ]
    assert len(queue.settings_study.best_trials) == 10  # each better in one of the two


def test_a_late_worker_whose_run_was_taken_learns_of_it(sweep_of):
    queue = queue_of(sweep_of())
    queue.draw(queue.state())
    trial = queue.state().next_trial(one_seed_first=False)
    attempt = queue.claim(trial, this_worker())
    assert queue.claim(trial, this_worker()) is None  # it is taken
    assert queue.send_heartbeat(attempt, 1, process_identity(os.getpid()))
    assert queue.state().running_attempts()[0].process == process_identity(os.getpid())
    assert queue.end(attempt, "lost")
    assert not queue.send_heartbeat(attempt, 2, process_identity(os.getpid()))
    assert not queue.end(attempt, "finished", (1.0,))
    assert queue.state().trials[0].state == "waiting"


def attempt(number: int, outcome: str | None, seed: int = 0, **more) -> Attempt:
    me = this_worker()
    known = {
        "setting": 0,
        "place": me.place,
        "worker": me.name,
        "worker_process": me.process,
        "beat": 0,
        "process": "",
        "began": 0.0,
        "seconds": 1.0,
    }
    return Attempt(number=number, outcome=outcome, seed=seed, **{**known, **more})


@pytest.mark.parametrize(
    ("hows", "state"),
    [
        ([], "waiting"),
        (["preempted"] * 20, "waiting"),
        (["lost"] * 10, "waiting"),
        (["lost"] * 11, "failed"),
        (["failed", "failed"], "waiting"),
        (["failed", "preempted", "failed", "lost", "failed"], "failed"),
        (["refused"], "failed"),
        (["failed", "finished"], "finished"),
        (["failed", None], "running"),
        (["duplicate", "preempted"], "waiting"),
    ],
)
def test_what_becomes_of_a_run_after_attempts(hows, state):
    setting = QueuedSetting(0, {"x": 1}, 0, True, "open")
    attempts = [attempt(number, outcome) for number, outcome in enumerate(hows)]
    assert sweep_state([setting], attempts, [0], retries=2).trials[0].state == state


def test_with_early_ends_the_first_seed_goes_first_and_decides():
    setting = QueuedSetting(0, {"x": 1}, 0, True, "open")
    state = sweep_state([setting], [attempt(0, None)], [0, 1], 2)
    assert state.next_trial(one_seed_first=True) is None
    assert state.next_trial(one_seed_first=False).seed == 1
    state = sweep_state([setting], [attempt(0, "finished")], [0, 1], 2)
    assert state.next_trial(one_seed_first=True).seed == 1
    state = sweep_state([setting], [attempt(0, "pruned")], [0, 1], 2)
    assert [(outcome, values) for _, outcome, values in state.settled_settings()] == [
        ("pruned", ())
    ]
    done = setting._replace(state="pruned")
    assert [
        trial.state for trial in sweep_state([done], [attempt(0, "pruned")], [0, 1], 2).trials
    ] == [
        "pruned",
        "spared",
    ]


def test_a_worker_elsewhere_is_gone_when_its_signs_of_life_stop(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: clock[0])
    watch = LivenessWatch(this_worker())
    far = attempt(0, None, place="another machine", beat=3)
    assert not watch.is_gone(far)
    clock[0] = heartbeat.LEASE + 1
    assert watch.is_gone(far)
    assert not watch.is_gone(far._replace(beat=4))  # a new sign
    clock[0] += heartbeat.LEASE
    assert not watch.is_gone(far._replace(beat=4))
    clock[0] += 1
    assert watch.is_gone(far._replace(beat=4))


def test_a_worker_here_is_gone_when_its_process_and_its_trial_are():
    watch = LivenessWatch(this_worker())
    child = hire(lambda: time.sleep(60))
    orphan = attempt(0, None, worker_process="1:0", process=process_identity(child))
    assert not watch.is_gone(orphan)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert watch.is_gone(orphan)
    assert not watch.is_gone(attempt(1, None))  # this process's own


def test_while_the_storage_is_away_a_worker_gives_up_its_trial_before_others_take_it(monkeypatch):
    clock, asked = [0.0], []
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: clock[0])

    def give(count: int) -> bool:
        asked.append(count)
        if len(asked) > 1:
            raise away()
        return True

    beats = Heartbeat(give)
    assert beats.send_if_due()
    while not beats.overdue:
        clock[0] += 1
        assert beats.send_if_due()
    assert clock[0] + heartbeat.LAST + heartbeat.BEAT <= heartbeat.LEASE + 1
    assert set(asked[1:]) == {2}  # the same sign again


def away() -> Exception:
    from sqlalchemy.exc import OperationalError

    inner = OperationalError("SELECT 1", {}, Exception("connection refused"))
    error = optuna.exceptions.StorageInternalError("an error")
    error.__cause__ = inner
    return error


def test_calls_are_tried_again_while_the_storage_is_away_and_other_errors_are_not(monkeypatch):
    monkeypatch.setattr("mic.sweep.queue.storage.PAUSE", 0.0)
    answers = [away(), away(), 7]

    def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retry_while_away(call) == 7
    with pytest.raises(KeyError):
        retry_while_away(lambda: {}["x"])
