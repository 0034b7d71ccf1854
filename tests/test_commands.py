"""Commands that the documentation names exist, and `make lock` knows every lock file."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.state import PROJECT

# The `make` that runs these tests hands its own ARGS and ENV down.
_OWN = {
    name: value
    for name, value in os.environ.items()
    if name not in ("MAKEFLAGS", "MAKEOVERRIDES", "ARGS", "ENV")
}

_SUFFIXES = {".md", ".toml", ".yml", ".in", ".sh", ".txt", ".py"}
_NAMES = {"Makefile", "Dockerfile", "run"}
# A changelog may name what is gone.
_LEFT_OUT = {"node_modules", "cdk.out", "CHANGELOG.md"}
_CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def texts() -> Iterator[tuple[str, str]]:
    """Path and content of each text file that is the repository's own."""
    for top in PROJECT.iterdir():
        if top.name in _LEFT_OUT or (top.name.startswith(".") and top.name not in (".ci", ".github")):
            continue
        for path in [top] if top.is_file() else top.rglob("*"):
            if (path.suffix in _SUFFIXES or path.name in _NAMES) and path.is_file():
                yield str(path.relative_to(PROJECT)), path.read_text()


def named(command: str) -> dict[str, set[str]]:
    """What follows this command in code spans and blocks, and the files that say so."""
    found: dict[str, set[str]] = {}
    for path, text in texts():
        for code in [text] if path.startswith((".ci", ".github")) else _CODE.findall(text):
            for match in re.findall(rf"(?:^|[`($&;] ?){command}", code, re.MULTILINE):
                found.setdefault(match, set()).add(path)
    return found


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    used = named(r"make (?:-s )?([a-z][a-z-]*)\b")
    assert {"test", "demo", "env"} <= set(used)
    assert {target: files for target, files in used.items() if target not in targets} == {}


def test_every_module_that_is_run_by_name_exists() -> None:
    used = named(r"python3? -m ([a-z_][\w.]*)")
    assert {"bench", "examples.credit_risk.train"} <= set(used)
    assert {module: files for module, files in used.items() if not _runs(module)} == {}


def _runs(module: str) -> bool:
    try:
        found = importlib.util.find_spec(module)
        if found is not None and found.submodule_search_locations is not None:
            found = importlib.util.find_spec(f"{module}.__main__")
    except ModuleNotFoundError:
        return False
    return found is not None


def test_every_test_that_a_document_names_exists() -> None:
    used = {
        (path, name)
        for path, text in texts()
        for code in _CODE.findall(text)
        for name in re.findall(r"(?<![\w/])tests/[\w/]+(?:\.\w+)?", code)
        if path.endswith(".md")
    }
    assert len(used) > 20
    assert {(path, name) for path, name in used if not (PROJECT / name).exists()} == set()


def test_make_lock_compiles_every_lock_file() -> None:
    steps = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "lock"],
        cwd=PROJECT,
        env=_OWN,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    locked = {path for path, text in texts() if path.endswith(".txt") and "--hash=sha256:" in text}
    assert "server/requirements.txt" in locked
    assert locked == set(re.findall(r"-o (\S+)", steps))


def steps_of(*arguments: str) -> list[str]:
    """The commands that make would run, without those that install."""
    printed = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *arguments],
        cwd=PROJECT,
        env=_OWN,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [line for line in printed.splitlines() if not re.match(r"PYTHON=|touch ", line)]


@pytest.mark.parametrize("target", ["bootstrap", "diff", "deploy", "destroy"])
def test_what_changes_an_account_looks_at_credentials_first_and_starts_with_an_empty_cdk_out(
    target: str,
) -> None:
    steps = steps_of(target, "ENV=prod", "ARGS=--require-approval never")
    assert steps[0] == "python -m preflight.credentials prod"
    cdk = steps[steps.index("rm -rf cdk.out") + 1]
    assert cdk.startswith("npx cdk ")
    assert "-c env=prod" in cdk
    assert " --require-approval never" in cdk


@pytest.mark.parametrize(("smoked", "deployed"), [(0, True), (1, False), (2, True), (130, False)])
def test_a_deployment_fails_with_the_smoke_client_unless_that_cannot_run(
    smoked: int, deployed: bool, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$*" = "-m operations smoke --env prod" ] && exit {smoked}\n')
    python.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", steps_of("deploy", "ENV=prod")[-1]], env=path, check=False)
    assert (done.returncode == 0) is deployed
    assert "= no ||" in steps_of("deploy", "SMOKE=no")[-1]


def test_destroying_takes_the_service_unless_both_are_asked_for() -> None:
    assert steps_of("destroy", "ENV=dev")[-1].startswith("npx cdk destroy MlflowOnAws-dev-Service -c env=dev")
    assert steps_of("destroy", "STACKS=--all")[-1].startswith("npx cdk destroy --all -c env=dev")


@pytest.mark.parametrize("target", ["gc", "import", "relocate"])
def test_whatever_is_said_of_a_dry_run_but_no_is_one(target: str) -> None:
    asked = (target, "FROM=mlruns", "OLD=s3://old")
    for said in ("yes", "true", "1", "Y"):
        assert "--dry-run" in " ".join(steps_of(*asked, f"DRY_RUN={said}"))
    for arguments in ((), ("DRY_RUN=no",), ("DRY_RUN=",)):
        assert "--dry-run" not in " ".join(steps_of(*asked, *arguments))


def test_a_variable_that_no_command_knows_is_refused() -> None:
    assert "--days 3" in steps_of("gc", "DAYS=3", "AWS_PROFILE=team")[-1]
    refused = subprocess.run(
        ["make", "gc", "DRYRUN=yes"], cwd=PROJECT, env=_OWN, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "no command knows DRYRUN=" in refused.stderr


def test_an_environment_that_does_not_exist_costs_no_synthesis() -> None:
    for target in ("synth", "diff", "preflight", "deploy", "destroy", "verify"):
        done = subprocess.run(
            ["make", "--no-print-directory", target, "ENV=nope"],
            cwd=PROJECT,
            env=_OWN,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "nope" in done.stderr
        assert "Subprocess exited" not in done.stderr
