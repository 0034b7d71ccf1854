"""Presigned URLs live for minutes, lead to artifacts only, and are in the audit log."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest

from tests.server.artifacts.harness import PRESIGNED, Answer, Site

APIS = ("/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/")


@pytest.fixture(scope="module")
def run(site: Site) -> str:
    return site.new_run({"a.html": b"<b>", "deep/" + "d" * 300: b"long"})


def ask(site: Site, api: str = APIS[0], **body: object) -> Answer:
    return site.send("POST", f"{api}{PRESIGNED}", body)


@pytest.mark.parametrize("api", APIS)
def test_url_gives_the_file_as_an_attachment_and_a_line_says_who_has_it(
    site: Site, run: str, api: str
) -> None:
    for path, given, seconds in (
        ("a.html", {}, 300),
        ("a.html", {"expiration": "900"}, 900),
        ("deep/" + "d" * 300, {"expiration": 1}, 1),
    ):
        got = ask(site, api, run_id=run, path=path, **given)
        assert got.status == 200, got.body
        query = parse_qs(urlsplit(got.json["presigned_url"]).query)
        assert query["X-Amz-Expires"] == [str(seconds)]
        line = site.audit()[-1]
        assert (line["audit"], line["route"]) == ("signed", f"{api}{PRESIGNED}")
        assert line["principal"] == site.identity.arn("viewer")
        assert line["object"]["key"].endswith(f"{run}/artifacts/{path}")
        assert line["object"]["seconds"] == str(seconds)
    got = ask(site, api, run_id=run, path="a.html")
    assert int(got.json["file_size"]) == 3
    with urlopen(got.json["presigned_url"]) as answer:
        assert answer.headers["Content-Disposition"] == "attachment; filename=a.html"
        assert answer.read() == b"<b>"


@pytest.mark.parametrize("seconds", [901, 604800, "604800", 604801, 2**62, 0, -1])
@pytest.mark.parametrize("api", APIS)
def test_no_url_lives_longer_than_a_quarter_of_an_hour(
    site: Site, run: str, api: str, seconds: object
) -> None:
    before = len(site.audit())
    got = ask(site, api, run_id=run, path="a.html", expiration=seconds)
    assert (got.status, got.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "expiration" in got.json["message"]
    assert len(site.audit()) == before


@pytest.mark.parametrize(
    "body",
    [
        {}, [], None, {"run_id": "x"}, {"path": "a.html"}, {"run_id": 1, "path": "a.html"},
        {"run_id": "RUN", "path": ["a.html"]}, {"run_id": "RUN", "path": "a.html", "expiration": "soon"},
        {"run_id": "RUN", "path": "../a.html"}, {"run_id": "RUN", "path": "%2e%2e/a.html"},
        {"run_id": "RUN", "path": "/a.html"}, {"run_id": "RUN", "path": "deep"},
        {"run_id": "RUN", "path": ""},
        {"run_id": "RUN", "path": "a.html", "expiration": 1e99}, {"run_id": "RUN", "path": "a\nb"},
        {"run_id": "\ud800", "path": "a"}, {"run_id": "a\0", "path": "a"},
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_nothing_is_signed(site: Site, run: str, body: object) -> None:
    before = len(site.audit())
    if isinstance(body, dict) and body.get("run_id") == "RUN":
        body = {**body, "run_id": run}
    got = site.send("POST", f"{APIS[0]}{PRESIGNED}", body)
    assert got.status in (400, 404), got.body
    assert got.json.keys() == {"error_code", "message"}
    assert len(site.audit()) == before


def test_run_or_file_that_does_not_exist_is_not_found(site: Site, run: str) -> None:
    assert ask(site, run_id="0" * 32, path="a.html").status == 404
    assert ask(site, run_id=run, path="b.html").status == 404
