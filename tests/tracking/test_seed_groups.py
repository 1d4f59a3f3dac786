"""Runs that differ by their seed alone, where they start from runs that have a seed too."""

from pathlib import Path

from mic.config.loading import Config, load, to_yaml
from mic.tracking.seed_groups import values_without_seed


def run(folder: Path, name: str, *overrides: str) -> Config:
    """A run's folder, as far as its config."""
    file = folder / name / "config.yaml"
    file.parent.mkdir(parents=True)
    config = load(Path("configs/base.yaml"), f"name={name}", f"runs={folder}", *overrides)
    file.write_text(to_yaml(config))
    return config


def alike(first: Config, second: Config) -> bool:
    return values_without_seed(first) == values_without_seed(second)


def test_a_seed_a_name_and_a_place_are_no_difference(tmp_path):
    first = run(tmp_path, "a-0", "seed=0", "logging.wandb=offline")
    assert alike(first, run(tmp_path / "else", "b", "seed=7"))
    assert not alike(first, run(tmp_path, "c", "objective.gamma=0.2"))


def test_starts_and_teachers_that_differ_by_their_seed_are_alike(tmp_path):
    for seed in (0, 1):
        run(tmp_path, f"head-{seed}", f"seed={seed}")
        run(tmp_path, f"teacher-{seed}", f"seed={seed}", "trainer.max_steps=9")
    run(tmp_path, "other", "seed=1", "trainer.learning_rate=1.0e-3")

    def on(name: str, head: str, teacher: str) -> Config:
        kind = ("teacher.kind=frozen", "objective.distillation.weight=1")
        starts = (f"encoder.name={tmp_path / head}", f"teacher.name={tmp_path / teacher}")
        return run(tmp_path, name, *starts, *kind)

    first = on("on-0", "head-0", "teacher-0")
    assert alike(first, on("on-1", "head-1", "teacher-1"))
    assert not alike(first, on("on-2", "other", "teacher-0"))
    assert not alike(first, on("on-3", "head-0", "head-1"))
    third = run(tmp_path, "third", f"encoder.name={tmp_path / 'on-0'}")
    assert alike(third, run(tmp_path, "fourth", f"encoder.name={tmp_path / 'on-1'}"))
    assert not alike(third, run(tmp_path, "fifth", f"encoder.name={tmp_path / 'on-2'}"))


def test_runs_that_begin_from_each_other_or_cannot_be_read_count_by_their_place(tmp_path):
    first = run(tmp_path, "first", f"encoder.name={tmp_path / 'second'}")
    second = run(tmp_path, "second", f"encoder.name={tmp_path / 'first'}")
    assert values_without_seed(second)["encoder.name"] != values_without_seed(first)["encoder.name"]
    (tmp_path / "second" / "config.yaml").write_text("name: [", encoding="utf-8")
    assert values_without_seed(first)["encoder.name"] == str(tmp_path / "second")
