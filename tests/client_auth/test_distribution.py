from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

_ROOT = Path(__file__).parents[2] / "client_auth"


def test_it_is_found_by_mlflow_under_the_name_aws() -> None:
    (found,) = entry_points(group="mlflow.request_auth_provider", name="aws")
    assert found.load()().get_name() == "aws"


def test_it_needs_boto3_and_mlflow_skinny_and_nothing_else() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    assert [line.split(">")[0] for line in project["dependencies"]] == ["boto3", "mlflow-skinny"]


def test_it_imports_only_what_its_dependencies_bring() -> None:
    imported = {
        name.partition(".")[0]
        for path in (_ROOT / "mlflow_aws_auth").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {
        "boto3",
        "botocore",
        "mlflow",
        "mlflow_aws_auth",
        "requests",
    }
