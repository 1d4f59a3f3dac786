"""Who is killed when: at random times over the whole life of a run's processes, and at places."""

import random
from dataclasses import dataclass

STEP = "mic.train.module:MICModule.training_step"
VALIDATION = "mic.train.module:MICModule.validation_step"
WRITE = "mic.train.resume.checkpoint_files:Hashed.write"
PUBLISH = "mic.train.resume.exact_resume:publish"
# signal, whom, rows of it, whether it comes twice
KINDS = (
    ("SIGKILL", "a rank", 6, False),
    ("SIGKILL", "all ranks", 3, False),
    ("SIGKILL", "launcher", 3, False),
    ("SIGTERM", "launcher", 3, False),
    ("SIGUSR1", "launcher", 2, False),
    ("SIGINT", "launcher", 2, False),
    ("SIGTERM", "launcher", 2, True),
    ("SIGINT", "launcher", 2, True),
)


@dataclass(frozen=True)
class Blow:
    """A signal to `launcher`, `rank 0`, `rank 1` or `all ranks`.

    It comes after a share of a run's life, once more some seconds later if `again` is not 0; or
    where a function is called for the n-th time (`place`, as places/sitecustomize.py reads it).
    """

    by: str
    whom: str
    after: float = 0.0
    again: float = 0.0
    place: str = ""

    @property
    def told(self) -> str:
        """What the table says of it."""
        function, _, rest = self.place.partition(" ")
        where = f", at call {rest.split()[0]} of `{function.split(':')[1]}`" if function else ""
        return f"{self.by}{' twice' if self.again else ''} to {self.whom}{where}"


def at(function: str, nth: int, by: str, whom: str) -> Blow:
    return Blow(by, whom, place=f"{function} {nth} {by} {whom.removeprefix('rank ')}")


def plan(seed: int) -> list[tuple[Blow, ...]]:
    """What each run gets: a blow for each of the processes that go on with it.

    Of a kind that comes k times, every k-th part of a life has one at random.
    """
    chance = random.Random(seed)
    found = []
    for by, whom, count, twice in KINDS:
        for part in range(count):
            after = (part + chance.uniform(0, 0.97)) / count
            again = chance.uniform(0.1, 1.5) if twice else 0.0
            name = f"rank {part % 2}" if whom == "a rank" else whom
            found.append((Blow(by, name, after, again),))
    return [
        *found,
        (at(WRITE, 300, "SIGKILL", "rank 0"),),
        (at(PUBLISH, 3, "SIGKILL", "rank 0"),),
        (at(VALIDATION, 14, "SIGKILL", "rank 1"),),
        (at(VALIDATION, 23, "SIGTERM", "launcher"),),
        (at(STEP, 300, "SIGUSR1", "launcher"),),  # the last step
        (at(STEP, 85, "SIGKILL", "rank 1"), at(STEP, 31, "SIGKILL", "rank 0")),  # one epoch
        (
            at(STEP, 150, "SIGTERM", "launcher"),
            at(STEP, 5, "SIGINT", "launcher"),
            at(STEP, 1, "SIGKILL", "rank 1"),
        ),
    ]
