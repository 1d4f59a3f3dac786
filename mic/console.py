"""Print the progress of long work (a bar on a terminal, lines in a log file) and notices."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS = 15.0  # between two lines of a log file


Advance = Callable[..., None]  # (pieces done, note="")


@contextmanager
def bar(label: str, total: int | None, done: int = 0) -> Iterator[Advance]:
    """Show progress on standard error; call the yielded function when pieces of the work are done.

    A total of None is not known yet; `done` pieces were done by an earlier process.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield progress_lines(label, total, console.print, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total, completed=done, note="")

        def advance(done: int, note: str = "") -> None:
            progress.update(task, advance=done, note=note)

        yield advance


def progress_lines(
    label: str, total: int | None, write: Callable[[str], None], done: int = 0
) -> Advance:
    """An `Advance` that writes a line every 15 seconds; none for work that ends sooner."""
    start = last = time.monotonic()
    count = done

    def advance(more: int, note: str = "") -> None:
        nonlocal count, last
        count += more
        now = time.monotonic()
        if now - last < SECONDS and (total is None or count < total or last == start):
            return
        last = now
        if total is None:
            write(f"{label} {count} {note}".rstrip())
            return
        left = (now - start) / max(count - done, 1) * (total - count)
        write(f"{label} {count}/{total} {note} {left:.0f} s left".replace("  ", " "))

    return advance


def notice(text: str) -> None:
    """Print a line on standard error."""
    sys.stderr.write(f"mic: {text}\n")
