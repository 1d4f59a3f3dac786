"""Handle SIGTERM, SIGUSR1 and Ctrl-C: stop a run without losing its state.

While training, the handler sets a flag, which the training loop reads where it can stop; elsewhere
there is nothing to save, and the handler raises Preempted at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mic.errors import Preempted

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stop:
    """The signal by which the run was asked to stop, if it was.

    While `waits` is true the training loop reads `asked`; otherwise a signal raises Preempted.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.raised: Preempted | None = None
        self.waits = False

    def __call__(self, number: int, frame: FrameType | None = None) -> None:  # noqa: ARG002
        if self.asked is not None:  # only the first signal counts: what it began must be finished
            return
        self.asked = signal.Signals(number)
        if not self.waits:
            text = f"stopped by {self.asked.name} outside training; nothing is half done"
            self.raised = Preempted(text)
            raise self.raised

    def why(self) -> str:
        """Why the run stops, for a message."""
        if self.asked is None:
            return "stopped because another rank was,"
        by_hand = self.asked is signal.SIGINT
        return "stopped as you asked" if by_hand else f"stopped by {self.asked.name}"

    def listen(self) -> None:
        """Handle the signals from now on; does nothing outside the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, self)


@contextmanager
def listening() -> Iterator[Stop]:
    """Handle the signals inside the block; afterwards as before."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    stop.listen()
    try:
        yield stop
    except Exception as error:  # a library may have replaced our Preempted
        if stop.raised is not None and not isinstance(error, Preempted):
            raise stop.raised from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
