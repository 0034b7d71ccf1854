"""MLflow's webhooks across restarts and tasks, with real servers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from local.parts.http_server import JsonHandler, serving
from local.parts.ports import free_port
from tests.conftest import RdsLike
from tests.server.conftest import Identity, Migration, deployment, request, wait_until_ready

pytestmark = pytest.mark.slow

_API = "/api/2.0/mlflow"
_SIGNING = "signing secret"


@contextmanager
def receiver() -> Iterator[tuple[str, queue.Queue[tuple[str, bool]]]]:
    """A webhook's address; of each call it keeps the model's name, and whether it was signed."""
    calls: queue.Queue[tuple[str, bool]] = queue.Queue()

    class Handler(JsonHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            signed = ".".join(
                (self.headers["X-MLflow-Delivery-Id"], self.headers["X-MLflow-Timestamp"], body)
            )
            digest = hmac.new(_SIGNING.encode(), signed.encode(), hashlib.sha256).digest()
            signature = f"v1,{base64.b64encode(digest).decode()}"
            calls.put((json.loads(body)["data"]["name"], self.headers.get("X-MLflow-Signature") == signature))
            self.answer(200, {})

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}/hook", calls


def test_two_tasks_deliver_a_webhook_with_a_secret_after_a_restart(
    rds: RdsLike, identity: Identity, migration: Migration
) -> None:
    with deployment(rds, identity, copy_of=migration) as made, receiver() as (url, calls):
        made.environ |= {
            "MLFLOW_AWS_WEBHOOK_KEY_ARN": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:k-a1B2c3",
            # What answers here is on this machine.
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        }
        ports = [free_port() for _ in range(3)]
        first = made.start("serve", port=ports[0])
        try:
            wait_until_ready(first, ports[0])
            status, answer = request(
                ports[0],
                "POST",
                f"{_API}/webhooks",
                {
                    "name": "ci",
                    "url": url,
                    "secret": _SIGNING,
                    "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
                },
            )
            assert status == 200, answer
        finally:
            first.kill()
            first.wait(30)
        tasks = [made.start("serve", port=port) for port in ports[1:]]
        try:
            for task, port in zip(tasks, ports[1:], strict=True):
                wait_until_ready(task, port)
                status, answer = request(port, "GET", f"{_API}/webhooks")
                assert status == 200, answer
                assert [each["name"] for each in json.loads(answer)["webhooks"]] == ["ci"]
                name = f"model-{secrets.token_hex(4)}"
                assert request(port, "POST", f"{_API}/registered-models/create", {"name": name})[0] == 200
                assert calls.get(timeout=60) == (name, True)
                assert _SIGNING not in task.output()
        finally:
            for task in tasks:
                task.kill()
                task.wait(30)
