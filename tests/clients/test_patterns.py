"""What the MLflow documentation and courses teach runs verbatim against the deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.clients.conftest import PATTERNS
from tests.clients.installation import LAST_OF_2, OLDEST, TODAY

if TYPE_CHECKING:
    from tests.clients.conftest import RunScript

# Moving a stage or an alias takes an approver; everything else is a contributor's daily work.
_APPROVERS = {"registry_stages", "registry_aliases", "registry_sealed"}
_RUNS = [
    *(
        (name, TODAY)
        for name in (
            *("tracking", "nested", "logged_models", "registry_stages", "registry_aliases"),
            *("registry_sealed", "registered_afterwards"),
        )
    ),
    *((f"autolog_{library}", TODAY) for library in ("sklearn", "xgboost", "lightgbm")),
    *(
        (name, version)
        for version in (OLDEST, LAST_OF_2)
        for name in ("tracking", "nested", "registry_stages", "registry_sealed", "registered_afterwards")
    ),
]


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("pattern", "version"), _RUNS)
def test_pattern_runs_as_written(pattern: str, version: str, run_script: RunScript) -> None:
    role = "approver" if pattern in _APPROVERS else "contributor"
    done = run_script(PATTERNS / f"{pattern}.py", version=version, role=role)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_pattern_is_run() -> None:
    run = {pattern for pattern, _ in _RUNS} | {"log_trees", "load_trees"}
    assert {file.stem for file in PATTERNS.glob("*.py")} == run
