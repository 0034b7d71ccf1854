from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.browser.chromium import PACKAGE, NoBrowserError, find


def program(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_named_browser_comes_first(tmp_path: Path) -> None:
    named = program(tmp_path / "mine")
    program(tmp_path / "chromium")
    assert find({"CHROMIUM": str(named), "PATH": str(tmp_path)}).executable == named


def test_browser_on_the_path_comes_second(tmp_path: Path) -> None:
    own = program(tmp_path / "chromium")
    assert find({"PATH": str(tmp_path)}).executable == own


def test_name_that_is_not_executable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoBrowserError, match="CHROMIUM names /nowhere, which is not executable"):
        find({"CHROMIUM": "/nowhere", "PATH": str(tmp_path)})


def test_missing_browser_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(NoBrowserError, match=r"none of chromium, .* is on the PATH"):
        find({"PATH": str(tmp_path)}, package=PACKAGE / "missing")


@pytest.mark.slow
def test_browser_of_the_package_starts(tmp_path: Path) -> None:
    try:
        chromium = find({"PATH": str(tmp_path)})
    except NoBrowserError as error:
        pytest.skip(str(error))
    shown = subprocess.run(
        [chromium.executable, "--version"],
        env={"HOME": str(tmp_path), **chromium.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "153." in shown
