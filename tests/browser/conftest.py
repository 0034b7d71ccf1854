"""The platform's content, and a Chromium in which people sign in.

Pictures go to a temporary directory; with MLFLOW_AWS_SCREENSHOTS=docs/images, to the documentation.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, Page, expect, sync_playwright

from local.state import PROJECT, State
from tests.browser.chromium import FLAGS, NoBrowserError, find
from tests.laptop import Laptop

_SCREENSHOTS = os.environ.get("MLFLOW_AWS_SCREENSHOTS")
# How long something may take to appear, in milliseconds, on a machine that is busy with other tests.
_PATIENCE = 60_000
_PAGE = {"width": 1280, "height": 800}
# What a newcomer would first dismiss.
_SETTLED = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
localStorage.setItem("mlflow.workflowType_v1", JSON.stringify("machine_learning"));
localStorage.setItem("_mlflow_user_setting_dismiss_next_model_registry_ui", "true");
"""


@dataclass(frozen=True)
class Site:
    """A running platform, as people see it."""

    url: str
    users: dict[str, dict[str, str]] = field(repr=False)
    state: Path

    def pins(self) -> str:
        """SHA-256 of the public keys of this platform's own certificates: the browser trusts these alone."""
        return ",".join(_pin(path) for path in sorted((self.state / "ca").glob("*.pem")))


def _pin(path: Path) -> str:
    key = x509.load_pem_x509_certificate(path.read_bytes()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return base64.b64encode(digest).decode()


def _as(role: str, laptop: Laptop, *command: str) -> None:
    """Run a Python module in the shell of a user with this role."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=PROJECT,
        env=laptop.environment(role),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def site(laptop: Laptop) -> Site:
    """A platform with three runs and a model in production."""
    _as("contributor", laptop, "tests.browser.content", "log")
    _as("contributor", laptop, "tests.browser.content", "document")
    _as("approver", laptop, "tests.browser.content", "promote")
    endpoints, users = State.read(laptop.state.endpoints), State.read(laptop.state.users)
    return Site(str(endpoints["tracking_url"]), users, laptop.state.directory)


@pytest.fixture(scope="module")
def browser() -> Iterator[Callable[[Site], Browser]]:
    """Starts Chromium for a site, once; it ends before other modules need their own event loop."""
    try:
        chromium = find()
    except NoBrowserError as error:
        pytest.skip(str(error))
    started: dict[str, Browser] = {}
    with sync_playwright() as playwright:

        def start(site: Site) -> Browser:
            if site.url not in started:
                started[site.url] = playwright.chromium.launch(
                    executable_path=chromium.executable,
                    args=[*FLAGS, f"--ignore-certificate-errors-spki-list={site.pins()}"],
                    env={**os.environ, **chromium.environment},
                )
            return started[site.url]

        yield start
        for each in started.values():
            each.close()


@pytest.fixture
def page(browser: Callable[[Site], Browser], site: Site) -> Iterator[Page]:
    """A window of a first-time visitor."""
    context = browser(site).new_context(viewport=_PAGE)  # type: ignore[arg-type]
    context.add_init_script(_SETTLED)
    context.set_default_timeout(_PATIENCE)
    expect.set_options(timeout=_PATIENCE)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def sessions() -> dict[str, list[Any]]:
    """Cookies of users who have already signed in."""
    return {}


@pytest.fixture
def signed_in(page: Page, site: Site, sessions: dict[str, list[Any]]) -> Callable[[str], Page]:
    """Signs a user in through the sign-in page, or restores their session."""

    def sign_in(name: str) -> Page:
        if name in sessions:
            page.context.add_cookies(sessions[name])
            page.goto(site.url)
            return page
        page.goto(site.url)
        page.get_by_label("Username").fill(site.users[name]["username"])
        page.get_by_label("Password").fill(site.users[name]["password"])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{site.url}/**")
        sessions[name] = page.context.cookies(site.url)
        return page

    return sign_in


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[Page, str], None]:
    """Takes a picture of a page under a name."""
    folder = PROJECT / _SCREENSHOTS if _SCREENSHOTS else tmp_path

    def take(page: Page, name: str) -> None:
        path = folder / f"{name}.png"
        page.screenshot(path=path, animations="disabled")
        assert path.stat().st_size > 10_000, "the picture is empty"

    return take


def ask(page: Page, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """What the page's own script would get: status and JSON, with the signed-in user's session."""
    script = """async ([method, path, body]) => {
        const headers = {"Content-Type": "application/json"};
        const answer = await fetch("/ajax-api/2.0/" + path, {method, headers,
            body: body === null ? undefined : JSON.stringify(body)});
        return [answer.status, await answer.json()];
    }"""
    status, answer = page.evaluate(script, [method, path, body])
    return status, answer
