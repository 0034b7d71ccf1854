"""Which client loads what another logged: the table in docs/connect.md is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from local.state import PROJECT
from tests.clients.conftest import PATTERNS
from tests.clients.installation import TODAY, VERSIONS, client, overlay

if TYPE_CHECKING:
    from tests.clients.conftest import RunScript

_FLAVORS = ("sklearn", "xgboost", "lightgbm")
_MARKS = {"✓": True, "✗": False}


def documented() -> dict[tuple[str, str, str], bool]:
    """(flavor, logged by, loaded by) → whether docs/connect.md says that it loads."""
    lines = (PROJECT / "docs" / "connect.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| model, logged by"))
    loaders = [cell.strip() for cell in lines[start].strip("|").split("|")][1:]
    table = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        model, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        flavor, logger = model.split(", ")
        for loader, cell in zip(loaders, cells, strict=True):
            table[flavor, logger, loader] = _MARKS[cell]
    return table


@pytest.fixture(scope="module")
def logged(run_script: RunScript) -> None:
    """A tree model of each library by each client."""
    for version in VERSIONS:
        done = run_script(PATTERNS / "log_trees.py", version=version)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_clients_load_what_the_documentation_says(logged: None, run_script: RunScript) -> None:
    found = {}
    for loader in VERSIONS:
        done = run_script(PATTERNS / "load_trees.py", version=loader)
        assert done.returncode == 0, done.stdout + done.stderr
        for name, outcome in json.loads(done.stdout.splitlines()[-1]).items():
            flavor, _, logger = name.partition("-")
            found[flavor, logger, loader] = outcome
    assert {key: outcome == "loads" for key, outcome in found.items()} == documented(), found


_PROMOTION = """
from mlflow import MlflowClient
MlflowClient().transition_model_version_stage("sklearn-%s", "1", stage="Production")
"""


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("version", VERSIONS)
def test_contributor_cannot_promote_and_every_client_says_which_role_may(
    version: str, logged: None, run_script: RunScript, tmp_path: Path
) -> None:
    script = tmp_path / "promote.py"
    script.write_text(_PROMOTION % version)
    done = run_script(script, version=version)
    assert done.returncode != 0
    assert "PERMISSION_DENIED" in done.stderr
    assert "approver" in done.stderr


def test_documented_table_has_every_client_and_library() -> None:
    assert set(documented()) == {(f, a, b) for f in _FLAVORS for a in VERSIONS for b in VERSIONS}, (
        f"The table in docs/connect.md must have a row and a column for each of {', '.join(VERSIONS)}."
        " Name them there, then see what loads: make test-slow ARGS=tests/clients/test_matrix.py"
    )


_TREE = """
import sys
import mlflow
from sklearn.ensemble import RandomForestClassifier
from sklearn.datasets import load_iris
model = RandomForestClassifier(n_estimators=3).fit(*load_iris(return_X_y=True))
mlflow.set_experiment("Newer-Skops")
with mlflow.start_run():
    mlflow.sklearn.log_model(
        model, name="model", pip_requirements=["mlflow"], skops_trusted_types=sys.argv[1:] or None
    )
"""


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_skops_that_the_constraints_exclude_refuses_a_forest_unless_its_type_is_trusted(
    run_script: RunScript, tmp_path: Path
) -> None:
    from examples.credit_risk.trusted_types import TRUSTED_TYPES

    script = tmp_path / "tree.py"
    script.write_text(_TREE)
    newer = {"PYTHONPATH": str(overlay("newer-skops", client(TODAY)))}
    plain = run_script(script, version=TODAY, **newer)
    assert "Untrusted types found in the file: ['sklearn.tree._tree.Tree']" in plain.stderr
    declared = run_script(script, *TRUSTED_TYPES, version=TODAY, **newer)
    assert declared.returncode == 0, declared.stderr
