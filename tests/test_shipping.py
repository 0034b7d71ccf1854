"""What a public repository needs beside its code: workflows that strangers start, a licence, packages."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from local.state import PROJECT

_WORKFLOWS = PROJECT / ".github" / "workflows"
_PACKAGES = {"client_auth": "mlflow_aws_auth", "lifecycle": "model_lifecycle"}
# https://www.apache.org/licenses/LICENSE-2.0.txt
_APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def workflow(name: str) -> dict[Any, Any]:
    # YAML 1.1 reads the key `on` as true.
    loaded: dict[Any, Any] = yaml.safe_load((_WORKFLOWS / f"{name}.yml").read_text())
    return loaded


def script(name: str, job: str, step: str) -> str:
    (found,) = (each["run"] for each in workflow(name)["jobs"][job]["steps"] if each.get("name") == step)
    return str(found)


@pytest.mark.parametrize("file", sorted(_WORKFLOWS.glob("*.yml")), ids=lambda file: str(file.name))
def test_nothing_that_a_stranger_starts_has_more_than_a_strangers_rights(file: Path) -> None:
    loaded = workflow(file.stem)
    triggers = {loaded[True]} if isinstance(loaded[True], str) else set(loaded[True])
    assert triggers <= {"pull_request", "push", "workflow_dispatch"}
    assert loaded["permissions"] == {}
    if "pull_request" in triggers:
        for job in loaded["jobs"].values():
            runs_its_code = any("actions/checkout" in step.get("uses", "") for step in job["steps"])
            assert not runs_its_code or job["permissions"] == {"contents": "read"}
            assert "id-token" not in job["permissions"]
            assert "environment" not in job


def test_a_comment_is_written_by_a_job_that_runs_no_code_of_the_change_and_not_for_forks() -> None:
    job = workflow("check")["jobs"]["comment"]
    assert job["if"] == "github.event.pull_request.head.repo.full_name == github.repository"
    assert [step for step in job["steps"] if "uses" in step] == []
    assert {line.split()[0] for step in job["steps"] for line in step["run"].splitlines()} == {"gh"}


def test_a_change_passes_what_contributors_run() -> None:
    assert ".ci/run" in [step.get("run") for step in workflow("check")["jobs"]["check"]["steps"]]


def test_only_a_job_of_the_protected_environment_becomes_the_deployer() -> None:
    job = workflow("deploy")["jobs"]["deploy"]
    assert job["environment"] == "${{ inputs.environment }}"
    assert job["permissions"] == {"contents": "read", "id-token": "write"}
    names = [step.get("name") for step in job["steps"] if "name" in step]
    # Nothing is installed beside the identity.
    assert names == ["Install", "Become the deployer", "Say what changes", "Deploy", "Smoke"]


@pytest.mark.parametrize("name", ["check", "deploy"])
def test_a_command_that_fails_before_a_pipe_fails_its_step(name: str) -> None:
    assert workflow(name)["defaults"] == {"run": {"shell": "bash"}}


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n- later\n\n"
        "## [1.2.0] - 2026-12-01\n\n### Added\n\n- this\n\n## [1.1.0]\n\n- old\n"
    )
    (tmp_path / "dist").mkdir()

    def notes(tag: str) -> int:
        command = script("release", "packages", "Read the changelog")
        environment = {"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"}
        return subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=environment, check=False).returncode

    assert notes("v1.2.0") == 0
    assert (tmp_path / "dist/notes.md").read_text().split() == ["###", "Added", "-", "this"]
    assert notes("v9.0.0") != 0


def test_every_package_is_of_one_version() -> None:
    versions = {
        tomllib.loads((PROJECT / name / "pyproject.toml").read_text())["project"]["version"]
        for name in (*_PACKAGES, "server")
    }
    assert len(versions) == 1


@pytest.mark.parametrize("package", _PACKAGES)
def test_a_wheel_says_its_licence_its_places_and_that_it_is_typed(package: str, tmp_path: Path) -> None:
    subprocess.run(
        ["python", "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=PROJECT / package,
        capture_output=True,
        check=True,
    )
    (built,) = tmp_path.iterdir()
    with zipfile.ZipFile(built) as wheel:
        (of_metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        (of_licence,) = (name for name in wheel.namelist() if name.endswith("/licenses/LICENSE"))
        metadata = message_from_bytes(wheel.read(of_metadata))
        assert hashlib.sha256(wheel.read(of_licence)).hexdigest() == _APACHE_2
        assert f"{_PACKAGES[package]}/py.typed" in wheel.namelist()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    urls = dict(each.split(", ", 1) for each in metadata.get_all("Project-URL", []))
    assert set(urls) == {"Source", "Documentation", "Changelog"}
    for url in urls.values():
        # The release puts its own repository in this place.
        assert url.startswith("https://github.com/example/mlflow-on-aws")
        path = url.partition("/blob/main/")[2]
        assert (PROJECT / path).exists()
    assert "s|github.com/example/mlflow-on-aws|" in script("release", "packages", "Build")


def test_the_repository_has_the_licence_that_its_packages_name() -> None:
    assert hashlib.sha256((PROJECT / "LICENSE").read_bytes()).hexdigest() == _APACHE_2


def test_every_place_that_has_an_owner_exists() -> None:
    lines = (PROJECT / ".github/CODEOWNERS").read_text().splitlines()
    patterns = [line.split()[0] for line in lines if not line.startswith("#")]
    assert [each for each in patterns if not list(PROJECT.glob(each.strip("/")))] == []


def test_renovate_reads_what_people_write_and_not_what_make_lock_compiles() -> None:
    renovate = json.loads((PROJECT / ".github/renovate.json").read_text())
    (pattern,) = renovate["pip_requirements"]["managerFilePatterns"]
    written = re.compile(pattern.strip("/"))
    assert written.search("server/requirements.in")
    assert not written.search("server/requirements.txt")
    (uv,) = renovate["customManagers"]
    pattern = uv["matchStrings"][0].replace("(?<", "(?P<")
    assert re.search(pattern, (PROJECT / "install.sh").read_text())


def test_a_form_or_a_hook_names_only_commands_that_exist() -> None:
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert {hook["entry"].removeprefix("make -s ") for hook in hooks[0]["hooks"]} <= set(targets)
    for form in (PROJECT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(form.read_text())
