"""A Hugging Face Hub on this machine that answers what one push asks for."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """`repositories` by name: whether private, and the files sent; `tokens` are those that came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories: dict[str, dict] = {}
        self.tokens: set[str | None] = set()
        self.refuse = 0  # the status that everything is answered with
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_) -> None:
        pass

    def answer(self, content: dict, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        name = self.path.removeprefix("/api/models/").split("/revision/")[0].split("?")[0]
        repository = self.server.repositories.get(name)
        if repository is None:
            self.answer({"error": "Repository not found"}, 404)
        else:
            self.answer(
                {"id": name, "private": repository["private"], "sha": "0" * 40, "siblings": []}
            )

    def do_POST(self) -> None:
        self.server.tokens.add(self.headers.get("Authorization"))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.refuse:
            self.answer({"error": "no"}, self.server.refuse)
        elif self.path == "/api/repos/create":
            request = json.loads(body)
            name = "/".join(filter(None, (request.get("organization"), request["name"])))
            public = request.get("private") is False or request.get("visibility") == "public"
            new = name not in self.server.repositories
            self.server.repositories.setdefault(name, {"private": not public, "files": {}})
            url = f"{self.server.url}/{name}"
            self.answer({"url": url, "id": name}, 200 if new else 409)
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in files
            ]
            self.answer({"files": modes})
        elif "/commit/" in self.path:
            name = self.path.removeprefix("/api/models/").split("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[name]["files"][line["value"]["path"]] = content
            url = f"{self.server.url}/{name}/commit/{'a' * 40}"
            self.answer({"success": True, "commitUrl": url, "commitOid": "a" * 40})
        else:
            self.answer({"errors": [], "warnings": []})


@contextmanager
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
