"""What is deployed behind the gate, with three contributors and whoever approves."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, cast

from mlflow_aws_server.database.connect import connect_async
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.frozen import Frozen
from mlflow_aws_server.identity.mapping import RoleMap
from mlflow_aws_server.identity.roles import Lane, Permission, Principal, Role

from tests.roles import permissions, server_roles
from tests.server.provenance.harness import Answer, Server

NOTE = "mlflow.note.content"
PREFIX = "/api/2.0/mlflow"
AJAX = "/ajax-api/2.0/mlflow"


def principal(name: str, role: str) -> Principal:
    """A verified caller that has this role of the deployment's table."""
    given = Role(name=role, permissions=frozenset(map(Permission, permissions(role))))
    return Principal(name=f"arn:aws:iam::123456789012:role/{name}", roles=(given,), lane=Lane.IAM)


ALICE, BOB = principal("alice", "contributor"), principal("bob", "contributor")
APPROVER, ADMIN = principal("approver", "approver"), principal("admin", "admin")


@dataclass(frozen=True)
class Caller:
    """A client with one identity."""

    server: Server
    principal: Principal

    def send(self, method: str, path: str, body: object = None, **request: Any) -> Answer:
        """Send one request."""
        return self.server.send(method, path, body, principal=cast(Any, self.principal), **request)

    def post(self, path: str, body: object) -> Any:
        """POST and expect success."""
        answer = self.send("POST", path, body)
        assert answer.status == 200, answer.body
        return answer.json

    def new_run(self, *, ended: bool = False) -> str:
        """Create a run with a metric, a param and a tag."""
        made = self.post("runs/create", {"experiment_id": "0", "start_time": 1, "run_name": "first"})
        run = str(made["run"]["info"]["run_id"])
        self.post(
            "runs/log-batch",
            {
                "run_id": run,
                "metrics": [{"key": "auc", "value": 0.5, "timestamp": 1, "step": 0}],
                "params": [{"key": "lr", "value": "1"}],
                "tags": [{"key": "commit", "value": "abc"}],
            },
        )
        if ended:
            self.end(run)
        return run

    def end(self, run: str, status: str = "FINISHED") -> None:
        """End a run."""
        self.post("runs/update", {"run_id": run, "status": status, "end_time": 2})

    def new_logged_model(self, run: str = "") -> str:
        """Create a logged model of this run, or of none, that is ready and has a tag."""
        body = {"experiment_id": "0", "tags": [{"key": "commit", "value": "abc"}], "source_run_id": run}
        model = str(self.post("logged-models", body)["model"]["info"]["model_id"])
        answer = self.send("PATCH", f"logged-models/{model}", {"model_id": model, "status": 2})
        assert answer.status == 200, answer.body
        return model

    def register(self, *, run: str = "", logged_model: str = "", name: str = "") -> str:
        """Register a version that rests on this run or logged model, of a new model; returns its name."""
        if not name:
            name = f"model-{secrets.token_hex(4)}"
            self.post("registered-models/create", {"name": name})
        source = f"{self.run(run)['info']['artifact_uri']}/model" if run else ""
        if logged_model:
            source = self.logged_model(logged_model)["info"]["artifact_uri"]
        # Without a run, MLflow would ask the server it finds in its environment for the model's.
        body = {"name": name, "source": source, "run_id": run, "model_id": logged_model if run else ""}
        self.post("model-versions/create", {key: value for key, value in body.items() if value})
        return name

    def promote(self, name: str, stage: str = "Staging") -> None:
        """Move version 1 of a model to a stage."""
        self.post("model-versions/transition-stage", {"name": name, "version": "1", "stage": stage})

    def run(self, run: str) -> Any:
        """A run, as anybody sees it; items in an order of their own."""
        answer = self.send("GET", "runs/get", query=f"run_id={run}")
        shown = answer.json["run"]
        for items in shown["data"].values():
            items.sort(key=repr)
        return shown

    def logged_model(self, model: str) -> Any:
        """A logged model, as anybody sees it."""
        answer = self.send("GET", f"logged-models/{model}")
        assert answer.status == 200, answer.body
        return answer.json["model"]


def freeze(server: Server, *, ended_runs_by_author: bool) -> Server:
    """The same server, with `Frozen` between its fast path and MLflow."""

    async def open_connection() -> Any:
        return await connect_async(
            host=server.socket, port=server.port, user="postgres", database=server.database, ssl=False
        )

    server.fast_path._app = Frozen(
        server.fast_path._app,
        ConnectionPool(open_connection, connections=1, queue=16),
        RoleMap.parse(server_roles({})),
        ended_runs_by_author=ended_runs_by_author,
    )
    return server
