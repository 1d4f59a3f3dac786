"""What SIGTERM, SIGUSR1 and Ctrl-C do: ask a run to stop where nothing is lost.

A handler does as little as it can: while training it sets a flag, which the loop reads where it can
stop; elsewhere there is nothing to save, and it raises Preempted at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mic.errors import Preempted

ASKS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stop:
    """Whether somebody asked to stop, and by which signal.

    `waits` says that the flag is read soon; where it is false, being asked raises Preempted.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.raised: Preempted | None = None
        self.waits = False

    def __call__(self, number: int, frame: FrameType | None = None) -> None:  # noqa: ARG002
        if self.asked is not None:  # the first one counts: what it began must come to its end
            return
        self.asked = signal.Signals(number)
        if not self.waits:
            text = f"stopped by {self.asked.name} outside training; nothing is half done"
            self.raised = Preempted(text)
            raise self.raised

    def why(self) -> str:
        """Who wanted it."""
        if self.asked is None:
            return "stopped because another rank was,"
        by_hand = self.asked is signal.SIGINT
        return "stopped as you asked" if by_hand else f"stopped by {self.asked.name}"

    def listen(self) -> None:
        """Handle the signals from now on; only a process's main thread can."""
        if threading.current_thread() is threading.main_thread():
            for one in ASKS:
                signal.signal(one, self)


@contextmanager
def listening() -> Iterator[Stop]:
    """Handle the signals within; afterwards as before."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {one: signal.getsignal(one) for one in ASKS}
    stop.listen()
    try:
        yield stop
    except Exception as error:  # a library may have made another one of ours
        if stop.raised is not None and not isinstance(error, Preempted):
            raise stop.raised from error
        raise
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
