"""What docs/sealing.md tells an auditor to type, typed as printed, with the AWS CLI and a viewer's rights."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.attacks_on_evidence.bytes_attacks import FILE, overwrite
from tests.attacks_on_evidence.site import FILES, VIEWER, Model, Site
from tests.clients.installation import installed
from tests.documents import blocks

# Installs the AWS CLI.
pytestmark = pytest.mark.slow
MINE = "tests/attacks_on_evidence/test_by_hand.py"
LOCK = Path(__file__).parents[1] / "deploy" / "awscli.txt"


def audited(model: Model, directory: Path) -> subprocess.CompletedProcess[str]:
    """The document's commands in a viewer's shell, for this model."""
    (block,) = (each for each in blocks("docs/sealing.md") if each.test == MINE)
    first, commands = block.text.split("\n", 1)
    assert first == "NAME=credit-risk NUMBER=7"
    with model.site.being(VIEWER):
        environ = {**os.environ, "AWS_ENDPOINT_URL": os.environ["MLFLOW_S3_ENDPOINT_URL"]}
    environ["PATH"] = f"{installed('awscli', LOCK) / 'bin'}{os.pathsep}{environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", f"NAME={shlex.quote(model.name)} NUMBER={model.number}\n{commands}"],
        cwd=directory,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_an_auditor_finds_a_sealed_version_intact_with_nothing_of_ours(site: Site, tmp_path: Path) -> None:
    model = site.model("run artifact")
    done = audited(model, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "manifest.json: OK" in lines
    assert {line.split()[1] for line in lines if line.startswith("intact")} == set(FILES)
    assert lines[-2:] == [str(len(FILES))] * 2


def test_an_auditor_sees_what_the_root_has_overwritten(site: Site, tmp_path: Path) -> None:
    model = site.model("run artifact")
    overwrite(site.root_s3, site.bucket, model.place)
    assert f"CHANGED  {FILE}" in audited(model, tmp_path).stdout
