"""The public tool mlflow-export-import takes an experiment out of a deployment, and brings none in."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from local.parts.ports import free_port
from tests.clients.installation import client
from tests.databases.make_databases import answering
from tests.object_store import ObjectStore
from tests.server.conftest import Deployment, Identity, wait_until_ready


@pytest.mark.slow
def test_an_experiment_goes_out_whole_and_what_comes_in_may_not_name_its_author(
    migrated: Deployment,
    identity: Identity,
    object_store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    contributor = {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "MLFLOW_TRACKING_TOKEN": identity.token("contributor"),
        "MLFLOW_S3_ENDPOINT_URL": object_store.endpoint,
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
    }
    for name, value in contributor.items():
        monkeypatch.setenv(name, value)

    def tool(name: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(client("3.14.0").parent / name), *arguments],
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path),
                "GIT_PYTHON_REFRESH": "quiet",
                **contributor,
                **environ,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    process = migrated.start("serve", port=port, MLFLOW_AWS_PUBLIC_URL=f"https://127.0.0.1:{port}")
    try:
        wait_until_ready(process, port)
        here = MlflowClient(contributor["MLFLOW_TRACKING_URI"])
        _write(here, "goes out")
        out = tool("export-experiment", "--experiment", "goes out", "--output-dir", "out")
        back = tool("import-experiment", "--experiment-name", "comes in", "--input-dir", "out")
        came = here.search_runs([here.get_experiment_by_name("comes in").experiment_id])
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert out.returncode == 0, out.stdout + out.stderr
    assert back.returncode == 1
    assert [run.info.status for run in came] == ["FAILED"]
    assert "PERMISSION_DENIED: Only the server writes the tag 'mlflow.user'" in back.stderr

    stock = {
        "PATH": f"{client('3.14.0').parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with answering(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, stock, []) as url:
        elsewhere = {"MLFLOW_TRACKING_URI": url, "MLFLOW_TRACKING_TOKEN": ""}
        moved = tool("import-experiment", "--experiment-name", "moved", "--input-dir", "out", **elsewhere)
    assert moved.returncode == 0, moved.stdout + moved.stderr
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute(_SEEN).fetchall() == [
            ("child", "parent", 0, None),
            ("parent", None, 500, "learning rate=0.1"),
        ]
    (file,) = (tmp_path / "mlartifacts").rglob("read me.txt")
    assert file.read_text() == "An artifact.\n"


def _write(source: MlflowClient, experiment: str) -> None:
    identity = source.create_experiment(experiment)
    parent = source.create_run(identity, run_name="parent").info.run_id
    source.log_batch(
        parent,
        metrics=[Metric("loss", 1 / (step + 1), 1000 + step, step) for step in range(500)],
        params=[Param("learning rate", "0.1")],
    )
    source.log_text(parent, "An artifact.\n", "notes/read me.txt")
    source.set_terminated(parent)
    child = source.create_run(identity, run_name="child", tags={"mlflow.parentRunId": parent})
    source.set_terminated(child.info.run_id)


# Names, since the tool gives new ids.
_SEEN = """
SELECT r.name,
       (SELECT p.name FROM tags t JOIN runs p ON p.run_uuid = t.value
         WHERE t.run_uuid = r.run_uuid AND t.key = 'mlflow.parentRunId'),
       (SELECT count(*) FROM metrics m WHERE m.run_uuid = r.run_uuid),
       (SELECT key || '=' || value FROM params a WHERE a.run_uuid = r.run_uuid)
  FROM runs r ORDER BY r.name
"""
