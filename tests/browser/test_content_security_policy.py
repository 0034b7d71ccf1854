"""MLflow's page works under its Content-Security-Policy, and Chromium reports no violation."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Site, ask
from tests.browser.content import DOCUMENTED, EXPERIMENT, METRIC, MODEL, PROMPT
from tests.browser.test_user_interface import experiment_id, run_ids

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SignIn = Callable[[str], Page]


class Violations(list[str]):
    """What the browser's console says of the policy, in any frame and worker."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        page.on("console", lambda message: self._hear(message.text))

    def _hear(self, text: str) -> None:
        if "Content Security Policy" in text:
            self.append(text)


def test_every_page_works_without_a_violation(signed_in: SignIn, site: Site) -> None:
    page = signed_in("viewer")
    violations = Violations(page)
    experiment, runs = experiment_id(page), run_ids(page)
    listed = f"/#/experiments/{experiment}"
    compared = f"runs={json.dumps(list(runs.values()))}&experiments={json.dumps([experiment])}"
    run = f"{listed}/runs/{runs[DOCUMENTED]}"
    shown = {
        "/#/": "Experiments",
        "/#/experiments": EXPERIMENT,
        f"{listed}/runs": DOCUMENTED,
        f"{listed}/runs?compareRunsMode=CHART": METRIC,
        f"{listed}/models": "model",
        f"{listed}/traces": "what is asked",
        f"/#/compare-runs?{compared}": DOCUMENTED,
        run: METRIC,
        f"{run}/model-metrics": METRIC,
        f"{run}/artifacts/notes.txt": "plain words",
        f"{run}/artifacts/config.json": "config.json",
        f"{run}/artifacts/table.csv": "table.csv",
        "/#/models": MODEL,
        f"/#/models/{MODEL}": "Version 2",
        f"/#/models/{MODEL}/versions/2": "Production",
        "/#/prompts": PROMPT,
        f"/#/prompts/{PROMPT}": "Hello",
    }
    missing = []
    for path, text in shown.items():
        page.goto(f"{site.url}{path}")
        try:
            expect(page.get_by_text(text).filter(visible=True).first).to_be_visible()
        except AssertionError:
            missing.append(path)
    for picture in ("picture.png", "drawing.svg"):
        page.goto(f"{site.url}{run}/artifacts/{picture}")
        image = page.locator("img[src^='blob:']").first
        expect(image).to_be_visible()
        assert image.evaluate("image => image.naturalWidth") > 0
    assert (missing, violations) == ([], [])


def test_a_report_is_drawn_by_its_script_and_reaches_nothing_of_ours(signed_in: SignIn, site: Site) -> None:
    page = signed_in("viewer")
    violations = Violations(page)
    run = run_ids(page)[DOCUMENTED]
    page.goto(f"{site.url}/#/experiments/{experiment_id(page)}/runs/{run}/artifacts/report.html")
    drawn = page.frame_locator("iframe.mlflow-html-iframe").get_by_text("drawn by a script")
    expect(drawn).to_have_text("drawn by a script, kept out")
    assert violations == []


def test_markup_that_gets_into_the_page_runs_nothing_and_asks_nobody_else(
    signed_in: SignIn, site: Site
) -> None:
    page = signed_in("viewer")
    page.goto(f"{site.url}/#/experiments")
    # Played in the page itself, as if a sanitizer had let it through.
    ran = page.evaluate("""async () => {
        const place = document.createElement("div");
        document.body.append(place);
        place.innerHTML = `<img src="data:," onerror="window.ran = 'handler'">
            <a id=click href="javascript:void(0)" onclick="window.ran = 'click'">x</a>`;
        place.querySelector("#click").click();
        // In a timer: what the test's own connection evaluates is exempt.
        await new Promise(done => setTimeout(() => {
            try { new Function("window.ran = 'eval'")(); } catch (error) {}
            done();
        }, 0));
        const script = document.createElement("script");
        script.src = "https://evil.example.com/x.js";
        const blocked = new Promise(resolve => script.onerror = () => resolve("blocked"));
        document.head.append(script);
        await blocked;
        const asked = await fetch("https://evil.example.com/").then(() => "asked", () => "refused");
        return [window.ran ?? "nothing", asked];
    }""")
    assert ran == ["nothing", "refused"]


def test_an_uploaded_page_is_never_a_document_of_ours(signed_in: SignIn, site: Site) -> None:
    page = signed_in("viewer")
    run = run_ids(page)[DOCUMENTED]
    path = f"/get-artifact?path=report.html&run_uuid={run}"
    headers = page.evaluate("async path => Object.fromEntries((await fetch(path)).headers)", path)
    assert headers["content-security-policy"].endswith("; sandbox")
    assert headers["strict-transport-security"].startswith("max-age=")
    status, _ = ask(page, "GET", "mlflow/runs/get?run_id=none")
    assert status == 404
    # Even where the browser shows it (here the same bytes and headers, without `attachment`).
    with_headers = {name: value for name, value in headers.items() if name != "content-disposition"}
    body = page.evaluate("async path => await (await fetch(path)).text()", path)
    page.route("**/shown.html", lambda route: route.fulfill(headers=with_headers, body=body))
    page.goto(f"{site.url}/shown.html")
    assert page.locator("#out").text_content() == ""
