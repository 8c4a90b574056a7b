"""As much of a W&B server as `wandb sync` and a workspace need: a real HTTP server on 127.0.0.1 that keeps what comes.

W&B's own client talks to it. GraphQL queries and mutations get the fields that they ask for, files are taken by PUT.
"""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Keeps the runs (`{run id: variables of upsertBucket}`), their history rows, files and views; `refuses`: no key is
    good."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.files: list[str] = []
        self.refuses = False
        self.views: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """What WANDB_BASE_URL is set to."""
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The `data` of a GraphQL answer."""
        entity = {"id": "e", "name": "us"}
        if "upsertBucket" in query:
            run = self.runs.setdefault(variables["name"], {})
            run |= {key: value for key, value in variables.items() if value is not None}
            project = {"id": "p", "name": variables["project"], "entity": entity}
            bucket = {"id": "b", "name": variables["name"], "displayName": run.get("displayName"), "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "createArtifact(" in query:
            artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        if "createRunFiles" in query:
            files = [{"name": n, "uploadUrl": f"{self.url}/storage/{n}"} for n in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if "upsertView" in query:
            self.views.append(variables)
            return {"upsertView": {"view": {"id": "v", "name": variables["name"]}, "inserted": True}}
        if "viewer" in query:
            flags = {"id": "u", "entity": "us", "username": "us", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": flags, "serverInfo": {"features": []}}
        if "serverInfo" in query:
            return {"serverInfo": {"features": []}}
        return {}


class Handler(BaseHTTPRequestHandler):
    """GraphQL by POST to /graphql, the history by POST to /files/.../file_stream, files by PUT to /storage/."""

    server: Server

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def body(self) -> bytes:
        """The request's content."""
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

    def reply(self, value: dict[str, Any], code: int = 200) -> None:
        """A status and JSON."""
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        """A GraphQL request, or rows of a run's files."""
        body = self.body()
        if self.server.refuses:
            self.reply({"errors": [{"message": "invalid API key"}]}, 401)
        elif self.path.endswith("/graphql"):
            request = json.loads(body)
            self.reply({"data": self.server.answer(request["query"], request.get("variables") or {})})
        elif self.path.endswith("/file_stream"):
            rows = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.server.history.setdefault(self.path.split("/")[-2], []).extend(json.loads(row) for row in rows)
            self.reply({})
        else:  # W&B's own telemetry
            self.reply({})

    def do_PUT(self) -> None:
        """A file."""
        self.body()
        self.server.files.append(self.path.removeprefix("/storage/"))
        self.reply({})

    def do_GET(self) -> None:
        """Nothing is here to be fetched."""
        self.reply({})


@contextmanager
def serving() -> Iterator[Server]:
    """The server, for the length of the block."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
