"""A W&B server that knows what its client asks of it in a run, and can fall silent."""

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

KEY = "0123456789" * 4


class FakeWandb:
    """`rows` are the lines of history by run as they came, `uploads` the names of files.

    `sweeps` is what was sent to make each; to every one of them the server says `doubts`. A run of
    those in `stopped` is to end, as the server sees it.
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.uploads: list[str] = []
        self.views: list[dict[str, Any]] = []
        self.sweeps: list[dict[str, Any]] = []
        self.doubts: list[str] = []
        self.stopped: set[str] = set()
        self.silent = Event()  # once set, no POST is answered
        self.address = ""
        self._last = ""

    def silent_after(self, name: str) -> None:
        """Answer no more once the operation of that name has been answered."""
        self._last = name

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        name = re.search(r"(?:query|mutation)\s+(\w+)", query).group(1)
        run = variables.get("name")
        if name == self._last:
            self.silent.set()
        project = {"name": "mic", "entity": {"name": "me"}}
        if name == "RunResumeStatus":
            return {"model": {**project, "bucket": self.known(run)}}
        if name == "UpsertBucket":
            self.rows.setdefault(run, [])
            return {"upsertBucket": {"bucket": {**self.known(run), "project": project}}}
        if name == "CreateRunFiles":
            files = [
                {"name": file, "uploadUrl": f"{self.address}/upload/{file}"}
                for file in variables["files"]
            ]
            return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}
        if name == "RunStoppedStatus":
            return {"project": {"run": {"stopped": variables["runId"] in self.stopped}}}
        if name == "UpsertSweep":
            self.sweeps.append(variables)
            owner = {"id": "e", "name": variables["entityName"] or "me"}
            project = {"id": "p", "name": variables["projectName"], "entity": owner}
            sweep = {"name": f"sweep{len(self.sweeps)}", "project": project}
            return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": self.doubts}}
        if "viewer" in query:
            account = {"id": "u", "username": "me", "entity": "me", "email": "", "flags": "{}"}
            return {"viewer": {**account, "admin": False, "teams": {"edges": []}}}
        if "upsertView" in query:
            self.views.append(variables)
            return {"upsertView": {"view": {"id": "1", "name": variables["name"]}}}
        return {}

    def known(self, run: str) -> dict[str, Any] | None:
        if run not in self.rows:
            return None
        count = len(self.rows[run])
        return {
            "id": run,
            "name": run,
            "displayName": run,
            "config": "{}",
            "wandbConfig": '{"t": 1}',  # it has begun
            "summaryMetrics": "{}",
            "historyTail": json.dumps([json.dumps(row) for row in self.rows[run][-1:]]),
            "eventsTail": "[]",
            "historyLineCount": count,
            "eventsLineCount": 0,
            "logLineCount": 0,
            "tags": [],
        }

    def stream(self, run: str, files: dict[str, Any]) -> None:
        history = files.get("wandb-history.jsonl", {"content": []})
        self.rows[run] += [json.loads(line, parse_constant=str) for line in history["content"]]


@contextmanager
def serving() -> Iterator[FakeWandb]:
    fake, closing = FakeWandb(), Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Nothing on the terminal."""

        def body(self) -> bytes:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw

        def answer(self, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.answer({})

        def do_PUT(self) -> None:
            self.body()
            fake.uploads.append(self.path)
            self.answer({})

        def do_POST(self) -> None:
            content = json.loads(self.body() or b"{}")
            if fake.silent.is_set():
                closing.wait(60)
                self.close_connection = True
            elif self.path == "/graphql":
                data = fake.graphql(content["query"], content.get("variables") or {})
                self.answer({"data": data})
            else:
                fake.stream(self.path.split("/")[-2], content.get("files") or {})
                self.answer({"exitcode": None, "limits": {}})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    server.handle_error = lambda *_: None  # clients that are gone
    fake.address = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield fake
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
