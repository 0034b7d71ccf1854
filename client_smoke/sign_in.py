"""The step about people's way in, as far as a program can go."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from client_smoke.smoke import Smoke
from client_smoke.verdict import StepFailed

_MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_FIX = "look at the listener's rules, and at the user pool's app client: its callback URL, its providers"


def people_are_shown_the_sign_in_page(smoke: Smoke) -> str:
    """A browser without a session is sent to another host, whose page asks for a name, or for a provider.

    A wrong client or callback URL makes Cognito answer with an error, or send it to its page `/error`.
    """
    import requests

    answer = smoke.request_as(None, "GET", "/")
    place = urljoin(smoke.target.url, answer.headers.get("Location", ""))
    host = urlsplit(place).netloc
    if answer.status_code not in _REDIRECTS or host == urlsplit(smoke.target.url).netloc:
        raise StepFailed(f"a browser without a session got {answer.status_code}", next_action=_FIX)
    with requests.Session() as browser:
        browser.trust_env = False
        for _ in range(_MOST_REDIRECTS):
            page = browser.get(place, verify=smoke.ca_file, timeout=smoke.timeout, allow_redirects=False)
            if page.status_code not in _REDIRECTS:
                break
            place = urljoin(place, page.headers.get("Location", ""))
            if urlsplit(place).netloc != host:
                return f"{host} sends people on to {urlsplit(place).netloc}"
    if page.status_code != 200 or urlsplit(place).path == "/error":
        raise StepFailed(
            f"the sign-in page of {host} answered {page.status_code} at {urlsplit(place).path}",
            next_action=_FIX,
        )
    return f"{host} answers with a page"
