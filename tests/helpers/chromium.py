"""A page in a real headless Chromium: what it asked for, what it complained of, what it shows.

Through the DevTools protocol on two pipes, one JSON message after another, each ended by NUL.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = "--headless --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe"
LAUNCH = (  # the browser reads from 3 and writes to 4
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)
PATIENCE = 60.0  # seconds until a message comes
QUIET = 1.0  # seconds after loading in which nothing more may be asked for


class Seen(NamedTuple):
    requests: list[str]
    complaints: list[str]
    value: Any


def browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def visit(url: str, expression: str, folder: Path, width: int = 1000) -> Seen:
    """Open a page, wait until it is loaded and quiet, and evaluate JavaScript in it.

    The window is `width` pixels wide; `folder` is for the browser's own files.
    """
    read_commands, commands = high(os.pipe())
    answers, write_answers = high(os.pipe())
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", LAUNCH, str(read_commands), str(write_answers)),
            *(str(browser()), *OPTIONS.split(), f"--user-data-dir={folder}", "about:blank"),
        ],
        pass_fds=(read_commands, write_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_commands)
    os.close(write_answers)
    try:
        return Session(commands, answers).visit(url, expression, width)
    finally:
        process.kill()
        process.wait()
        os.close(commands)
        os.close(answers)


def high(ends: tuple[int, int]) -> list[int]:
    """The ends of a pipe under numbers that do not collide with 3 and 4, the browser's own."""
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved


class Session:
    """One tab of a browser that reads `commands` and writes `answers`."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands, self.answers = commands, answers
        self.buffer = b""
        self.events: list[dict[str, Any]] = []
        self.sent = 0
        self.session: str | None = None
        os.set_blocking(answers, False)

    def visit(self, url: str, expression: str, width: int) -> Seen:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Network", "Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message(PATIENCE))
        with suppress(TimeoutError):
            while True:
                self.events.append(self.message(QUIET))
        evaluated = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        requests = [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        complaints = [
            json.dumps(event["params"])
            for event in self.events
            if event["method"]
            in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        ]
        return Seen(requests, complaints, evaluated["result"].get("value"))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.message(PATIENCE)
            if answer.get("id") == self.sent:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def message(self, patience: float) -> dict[str, Any]:
        """The next message. Raises TimeoutError when none comes."""
        until = time.monotonic() + patience
        while b"\0" not in self.buffer:
            if time.monotonic() > until:
                raise TimeoutError(f"no message of the browser in {patience} s")
            with suppress(BlockingIOError):
                read = os.read(self.answers, 2**20)
                assert read, "the browser has ended"
                self.buffer += read
            time.sleep(0.01)
        line, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(line)
