"""People download artifacts: S3 gives them what is large, to nobody but them and for minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Site, _as, ask
from tests.browser.content import DOWNLOADS, LARGE, NOTE
from tests.laptop import Laptop

# The first test waits for the platform.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_viewer_downloads_from_s3_by_the_button_and_as_a_page_s_script(
    signed_in: Callable[[str], Page], site: Site, laptop: Laptop
) -> None:
    _as("contributor", laptop, "tests.browser.content", "download")
    page = signed_in("viewer")
    _, found = ask(page, "GET", f"mlflow/experiments/get-by-name?experiment_name={DOWNLOADS}")
    experiment = found["experiment"]["experiment_id"]
    _, found = ask(page, "POST", "mlflow/runs/search", {"experiment_ids": [experiment]})
    run = found["runs"][0]["info"]["run_id"]

    page.goto(f"{site.url}/#/experiments/{experiment}/runs/{run}/artifacts/note.txt")
    expect(page.get_by_text(NOTE)).to_be_visible()
    with page.expect_download() as download:
        page.locator("[data-component-id$='artifactview.tsx_337']").click()
    assert Path(download.value.path()).read_text() == NOTE
    assert not download.value.url.startswith(site.url)

    # As previews and downloads of logged models do it.
    script = """async path => {
        const answer = await fetch(path);
        return [answer.redirected, (await answer.blob()).size];
    }"""
    assert page.evaluate(script, f"/get-artifact?path=large.txt&run_uuid={run}") == [True, LARGE]
