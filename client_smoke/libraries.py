"""The client's own libraries: loaded once, with their versions on record."""

from __future__ import annotations

import importlib
from importlib.metadata import version

from client_smoke.smoke import Smoke
from client_smoke.verdict import CannotRun

_DISTRIBUTIONS = ("mlflow", "scikit-learn", "skops", "boto3")
_MODULES = ("mlflow.sklearn", "mlflow.pyfunc", "sklearn.ensemble", "skops.io", "matplotlib.figure", "boto3")


def client_libraries_load(smoke: Smoke) -> str:
    """Import what every later step uses, so that none of them is charged for it."""
    try:
        for module in _MODULES:
            importlib.import_module(module)
        smoke.versions |= {name: version(name) for name in _DISTRIBUTIONS}
    except ImportError as error:
        raise CannotRun(
            f"the client libraries do not load: {error}",
            next_action="pip install --require-hashes -r requirements.txt into this Python's environment",
        ) from error
    if int(smoke.versions["mlflow"].split(".")[0]) < 3:
        raise CannotRun(
            f"this client is MLflow {smoke.versions['mlflow']}",
            next_action="install MLflow 3 (requirements.txt has the tested versions)",
        )
    return ", ".join(f"{name} {number}" for name, number in smoke.versions.items())
