"""People in a real Chromium: they sign in and do what their role allows."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Site, ask
from tests.browser.content import EXPERIMENT, METRIC, MODEL, RUNS, STEPS, curve

# The first test waits for the platform.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SignIn = Callable[[str], Page]
Picture = Callable[[Page, str], None]
_MODEL_PAGE = f"/#/models/{MODEL}/versions/2"


def experiment_id(page: Page) -> str:
    status, answer = ask(page, "GET", f"mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}")
    assert status == 200
    return str(answer["experiment"]["experiment_id"])


def run_ids(page: Page) -> dict[str, str]:
    status, answer = ask(page, "POST", "mlflow/runs/search", {"experiment_ids": [experiment_id(page)]})
    assert status == 200
    return {run["info"]["run_name"]: run["info"]["run_id"] for run in answer["runs"]}


def drawn(page: Page, *, runs: int) -> dict[str, list[float]]:
    """The curves on the page, point by point, once every run has one."""
    traces = (
        "[...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data || [])"
        f".filter(trace => trace.metricKey === '{METRIC}' && trace.y.length === {STEPS})"
    )
    page.wait_for_function(f"() => new Set({traces}.map(trace => trace.name)).size === {runs}")
    expect(page.locator(".js-plotly-plot .scatterlayer .js-line").first).to_be_visible()
    found = page.evaluate(f"() => {traces}.map(trace => [trace.name, Array.from(trace.y)])")
    return dict(found)


def test_stranger_sees_only_the_sign_in_page(page: Page, site: Site, picture: Picture) -> None:
    page.goto(f"{site.url}/#/experiments")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert not page.url.startswith(site.url)
    picture(page, "sign-in")


def test_wrong_password_lets_nobody_in(page: Page, site: Site) -> None:
    page.goto(site.url)
    page.get_by_label("Username").fill(site.users["viewer"]["username"])
    page.get_by_label("Password").fill("a guess")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Incorrect username or password")).to_be_visible()
    page.goto(site.url)
    assert not page.url.startswith(site.url)


def test_viewer_sees_experiments_a_runs_chart_and_a_registered_model(
    signed_in: SignIn, site: Site, picture: Picture
) -> None:
    page = signed_in("viewer")
    assert ask(page, "GET", "mlflow-aws/whoami")[1]["principal"] == "cognito:viewer"

    page.goto(f"{site.url}/#/experiments")
    expect(page.get_by_role("link", name=EXPERIMENT)).to_be_visible()

    page.goto(f"{site.url}/#/experiments/{experiment_id(page)}/runs?compareRunsMode=CHART")
    for name in RUNS:
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    assert drawn(page, runs=len(RUNS)) == {name: curve(height) for name, height in RUNS.items()}
    picture(page, "run-charts")

    page.goto(f"{site.url}/#/experiments/{experiment_id(page)}/runs/{run_ids(page)['deep']}/model-metrics")
    expect(page.get_by_text(METRIC, exact=True).first).to_be_visible()
    assert drawn(page, runs=1) == {"deep": curve(RUNS["deep"])}

    page.goto(f"{site.url}{_MODEL_PAGE}")
    expect(page.get_by_role("heading", name="Version 2")).to_be_visible()
    expect(page.get_by_text("Production", exact=True)).to_be_visible()
    expect(page.get_by_text("mlflow-approver").first).to_be_visible()
    picture(page, "registered-model")


def test_viewer_cannot_delete_an_experiment_and_is_told_why(
    signed_in: SignIn, site: Site, picture: Picture
) -> None:
    page = signed_in("viewer")
    page.goto(f"{site.url}/#/experiments")
    row = page.get_by_role("row").filter(has_text=EXPERIMENT)
    row.get_by_role("checkbox").click()
    page.get_by_role("button", name="Delete").click()
    with page.expect_response(re.compile("experiments/delete")) as refused:
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    assert refused.value.status == 403
    expect(page.get_by_text("needs the role approver or admin; cognito:viewer is viewer")).to_be_visible()
    picture(page, "viewer-is-refused")
    page.reload()
    expect(page.get_by_role("link", name=EXPERIMENT)).to_be_visible()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "mlflow/experiments/create", {"name": "by a viewer"}),
        ("POST", "mlflow/experiments/update", {"experiment_id": "1", "new_name": "renamed"}),
        ("PATCH", "mlflow/registered-models/update", {"name": MODEL, "description": "changed"}),
        ("POST", "mlflow/registered-models/rename", {"name": MODEL, "new_name": "renamed"}),
        ("DELETE", "mlflow/model-versions/delete", {"name": MODEL, "version": "1"}),
        (
            "POST",
            "mlflow/model-versions/transition-stage",
            {"name": MODEL, "version": "1", "stage": "Production"},
        ),
        ("POST", "mlflow/registered-models/alias", {"name": MODEL, "alias": "champion", "version": "1"}),
    ],
)
def test_viewers_page_cannot_change_anything(
    signed_in: SignIn, method: str, path: str, body: dict[str, str]
) -> None:
    status, answer = ask(signed_in("viewer"), method, path, body)
    assert (status, answer["error_code"]) == (403, "PERMISSION_DENIED")


def test_approver_moves_an_alias_under_their_own_name(signed_in: SignIn) -> None:
    page = signed_in("approver")
    moved = {"name": MODEL, "alias": "challenger", "version": "1"}
    assert ask(page, "POST", "mlflow/registered-models/alias", moved)[0] == 200
    _, answer = ask(page, "GET", f"mlflow/model-versions/get?name={MODEL}&version=1")
    history = [
        tag["value"]
        for tag in answer["model_version"]["tags"]
        if tag["key"].startswith("mlflow_aws.history.")
    ]
    assert any('"cognito:approver"' in entry and '"challenger"' in entry for entry in history)


def test_scripts_cannot_read_the_session(signed_in: SignIn) -> None:
    page = signed_in("viewer")
    assert page.evaluate("document.cookie") == ""
    cookies = page.context.cookies()
    session = [cookie for cookie in cookies if cookie["name"].startswith("AWSELBAuthSessionCookie")]
    assert session
    assert all(cookie["httpOnly"] and cookie["secure"] for cookie in session)
    stored = page.evaluate("JSON.stringify([localStorage, sessionStorage])")
    assert "eyJ" not in stored
