"""The public tool mlflow-export-import takes experiments out of a deployment, and brings them in."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from local.parts.ports import free_port
from tests.clients.installation import client
from tests.databases.make_databases import answering
from tests.documents import blocks
from tests.object_store import ObjectStore
from tests.server.conftest import Deployment, Identity, wait_until_ready

_PRINCIPAL, _USER, _CLAIMED = "mlflow_aws.principal", "mlflow.user", "mlflow_aws.claimed_user"


@pytest.mark.slow
def test_experiments_go_out_whole_and_come_in_whole_as_those_of_whoever_brings_them(
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
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    for name, value in contributor.items():
        monkeypatch.setenv(name, value)
    tools = client("3.14.0").parent
    (tmp_path / "both").mkdir()
    for package in ("mlflow_export_import", "tabulate"):
        for part in tools.parent.glob(f"lib/python*/site-packages/{package}*"):
            (tmp_path / "both" / part.name).symlink_to(part)

    def tool(command: str, **environ: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command],
            env={
                "PATH": f"{tools}:/usr/bin:/bin",
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
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    process = migrated.start("serve", port=port, MLFLOW_AWS_PUBLIC_URL=f"https://127.0.0.1:{port}")
    stock = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    files = ["--no-serve-artifacts", "--default-artifact-root", str(tmp_path / "files")]
    try:
        wait_until_ready(process, port)
        with answering(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, stock, files) as url:
            here, there = MlflowClient(contributor["MLFLOW_TRACKING_URI"]), MlflowClient(url, url)
            elsewhere = {"MLFLOW_TRACKING_URI": url, "MLFLOW_TRACKING_TOKEN": ""}

            _write(here, "goes out")
            tool("export-experiment --experiment 'goes out' --output-dir out")
            tool("import-experiment --experiment-name moved --input-dir out", **elsewhere)
            tool("import-experiment --experiment-name 'back again' --input-dir out")

            run = _write(there, "theirs", user="ada")
            there.create_registered_model("churn", {"team": "risk"}, "Who leaves")
            there.create_model_version("churn", f"{run.info.artifact_uri}/model", run.info.run_id)
            there.transition_model_version_stage("churn", "1", "Production")
            tool("export-experiment --experiment theirs --output-dir in", **elsewhere)
            # With MLflow 3 it writes an empty file.
            module = f"PYTHONPATH=both {client('2.22.5')} -m mlflow_export_import.model.export_model"
            tool(f"{module} --model churn --output-dir models/churn", **elsewhere)
            tool("import-experiment --experiment-name theirs --use-src-user-id True --input-dir in")
            (wrapped,) = (each.commands for each in blocks("docs/operations.md") if "main()" in each.commands)
            tool(wrapped, MLFLOW_TRACKING_TOKEN=identity.token("approver"))
            came = {name: _runs(here, name) for name in ("back again", "theirs", "churn")}
            histories = [
                here.get_metric_history(runs["parent"].info.run_id, "loss") for runs in came.values()
            ]
            version = here.get_model_version("churn", "1")
            model = here.get_registered_model("churn")
    finally:
        process.terminate()
        process.communicate(timeout=60)

    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute(_SEEN).fetchall() == [
            ("child", "parent", 0, None),
            ("parent", None, 500, "learning rate=0.1"),
        ]
    for runs, history in zip(came.values(), histories, strict=True):
        parent, child = runs["parent"], runs.get("child")
        assert parent.data.params == {"learning rate": "0.1"}
        assert sorted((each.step, each.value) for each in history) == [
            (step, 1 / (step + 1)) for step in range(500)
        ]
        assert child is None or child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        kept = object_store.read(parent.info.artifact_uri.removeprefix(f"s3://{object_store.bucket}/"))
        assert kept["notes/read me.txt"] == b"An artifact.\n"
    for runs in (came["back again"], came["theirs"]):
        for run in runs.values():
            assert (run.data.tags[_PRINCIPAL], run.data.tags[_USER]) == (identity.arn("contributor"),) * 2
    # Named by the tool, and nobody's word but its own.
    assert {run.data.tags[_CLAIMED] for run in came["theirs"].values()} == {"ada"}
    parent = came["churn"]["parent"]
    assert (version.run_id, version.source) == (parent.info.run_id, f"{parent.info.artifact_uri}/model")
    assert (version.current_stage, version.status) == ("Production", "READY")
    assert version.tags[_PRINCIPAL] == identity.arn("approver")
    assert (model.tags, model.description) == ({"team": "risk"}, "Who leaves")


def _write(source: MlflowClient, experiment: str, **tags: str) -> Any:
    identity = source.create_experiment(experiment)
    named = {f"mlflow.{name}": value for name, value in tags.items()}
    parent = source.create_run(identity, run_name="parent", tags=named)
    source.log_batch(
        parent.info.run_id,
        metrics=[Metric("loss", 1 / (step + 1), 1000 + step, step) for step in range(500)],
        params=[Param("learning rate", "0.1")],
    )
    source.log_text(parent.info.run_id, "An artifact.\n", "notes/read me.txt")
    source.log_text(parent.info.run_id, f"run_id: {parent.info.run_id}\n", "model/MLmodel")
    source.set_terminated(parent.info.run_id)
    child = source.create_run(
        identity, run_name="child", tags={"mlflow.parentRunId": parent.info.run_id, **named}
    )
    source.set_terminated(child.info.run_id)
    return parent


def _runs(source: MlflowClient, experiment: str) -> dict[str, Any]:
    found = source.search_runs([source.get_experiment_by_name(experiment).experiment_id])
    assert {run.info.status for run in found} == {"FINISHED"}
    return {run.info.run_name: run for run in found}


# Names, since the tool gives new ids.
_SEEN = """
SELECT r.name,
       (SELECT p.name FROM tags t JOIN runs p ON p.run_uuid = t.value
         WHERE t.run_uuid = r.run_uuid AND t.key = 'mlflow.parentRunId'),
       (SELECT count(*) FROM metrics m WHERE m.run_uuid = r.run_uuid),
       (SELECT key || '=' || value FROM params a WHERE a.run_uuid = r.run_uuid)
  FROM runs r JOIN experiments e USING (experiment_id) WHERE e.name = 'moved' ORDER BY r.name
"""
