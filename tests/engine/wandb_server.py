"""As much of a W&B server as `wandb sync`, a workspace and a sweep need: HTTP on 127.0.0.1, keeping what comes.

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
    """Keeps sweeps, runs (`{run id: variables of upsertBucket}`), their history rows, files and views.

    `refuses`: no key is good. `trials`: what agents are told to run, `{run id: {parameter: value}}`.
    It finds no artifact by its name.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.files: list[str] = []
        self.refuses = False
        self.sweeps: list[dict[str, Any]] = []
        self.trials: dict[str, dict[str, Any]] = {}
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
        if "Sweep" in query or "gent" in query:
            return self.answer_sweep(query, variables)
        if "viewer" in query:
            flags = {"id": "u", "entity": "us", "username": "us", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": flags, "serverInfo": {"features": []}}
        if "serverInfo" in query:
            return {"serverInfo": {"features": []}}
        return {}

    def answer_sweep(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """What `wandb sweep` and `wandb agent` ask; a heartbeat hands out the next trial."""
        if "upsertSweep" in query:
            self.sweeps.append(variables)
            project = {"id": "p", "name": "runner", "entity": {"id": "e", "name": "us"}}
            sweep = {"id": "s", "name": "sweep1", "state": "RUNNING", "project": project}
            return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}
        if "createAgent(" in query:
            return {"createAgent": {"agent": {"id": "g"}}}
        if "agentHeartbeat(" in query:
            commands = []
            if self.trials:
                run, values = self.trials.popitem()
                args = {name: {"value": value} for name, value in values.items()}
                commands = [{"id": run, "type": "run", "run_id": run, "program": "runner", "args": args}]
            return {"agentHeartbeat": {"agent": {"id": "g"}, "commands": json.dumps(commands)}}
        nothing = ("description", "createdAt", "heartbeatAt", "updatedAt", "bestLoss", "controller", "scheduler")
        sweep: dict[str, Any] = dict.fromkeys(nothing)
        sweep |= {"id": "s", "name": "sweep1", "method": "bayes", "state": "RUNNING", "earlyStopJobRunning": False}
        return {"project": {"sweep": sweep | {"config": self.sweeps[-1]["config"], "runs": {"edges": []}}}}


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
