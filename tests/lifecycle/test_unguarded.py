"""A stock MLflow server: it verifies nobody, seals nothing and keeps no history, which is said plainly."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_lifecycle.cli import main

from local.parts.ports import free_port
from tests.lifecycle.conftest import POLICY

# MLflow's own application in one process; `mlflow server` starts several, which nothing here needs.
SERVER = """
import sys
from werkzeug.serving import make_server
from mlflow.server import app
from mlflow.server.handlers import initialize_backend_stores
initialize_backend_stores(sys.argv[2], sys.argv[2], "mlflow-artifacts:/")
make_server("127.0.0.1", int(sys.argv[1]), app).serve_forever()
"""


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory, port = tmp_path_factory.mktemp("stock"), free_port()
    log = directory / "log"
    command = [sys.executable, "-c", SERVER, str(port), f"sqlite:///{directory}/mlflow.db"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=directory, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 200
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.slow
def test_a_model_is_promoted_and_explained_and_said_not_to_be_sealed(
    stock: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    client = MlflowClient(stock, stock)
    client.create_registered_model("m")
    run = client.create_run("0").info
    client.log_metric(run.run_id, "auc", 0.8)
    client.create_model_version("m", f"{run.artifact_uri}/model", run.run_id)
    capsys.readouterr()

    ours = [f"--tracking-uri={stock}", f"--policy={policy}", "--json"]
    assert main(["promote", "m", "1", "--to=staging", *ours]) == 1
    assert "--unguarded" in capsys.readouterr().err

    assert main(["promote", "m", "1", "--to=staging", *ours, "--unguarded"]) == 0
    said = capsys.readouterr()
    assert "note: not sealed" in said.err
    assert "sealed and unchanged" not in {rule["rule"] for rule in json.loads(said.out)["rules"]}
    found = client.get_model_version("m", "1")
    assert (found.current_stage, found.tags) == ("Staging", {})
    assert client.get_registered_model("m").aliases == {"challenger": "1"}

    assert main(["record", "m", "1", f"--tracking-uri={stock}", "--unguarded"]) == 1
    assert "not sealed" in capsys.readouterr().err
    assert main(["explain", "m", "1", f"--tracking-uri={stock}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "not sealed"
