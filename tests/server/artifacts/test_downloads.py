"""Downloads answer as stock MLflow's do, and never more freely."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.server.artifacts.harness import Site, Stock

FILES = {
    "notes.txt": b"plain\n",
    "page.html": b"<script>alert(1)</script>",
    "picture.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "picture.png": b"\x89PNG",
    "model/MLmodel": b"flavors: {}\n",
    "model/data.pkl": b"x" * 3_000_000,
    "empty": b"",
    "a b+c 100%.txt": b"name",
    "größe 日本.csv": b"1,2\n",
    'quote"d.json': b"{}",
    "archive.tar.gz": b"\x1f\x8b",
}
# Those that say what a browser may do with the bytes.
_SAME = ("content-type", "content-length", "content-disposition", "x-content-type-options")


@pytest.fixture(scope="module")
def run(site: Site) -> str:
    return site.new_run(FILES)


def test_files_come_as_stock_sends_them(site: Site, stock: Stock, run: str) -> None:
    for path, content in FILES.items():
        theirs = stock.send("/get-artifact", path=path, run_uuid=run)
        ours = site.send("GET", "/get-artifact", path=path, run_uuid=run)
        assert (ours.status, theirs.status) == (200, 200), (path, ours.body, theirs.body)
        assert ours.body == content
        assert {name: ours.headers[name] for name in _SAME} == {name: theirs.headers[name] for name in _SAME}
        assert ours.headers["content-disposition"].startswith("attachment;")
        head = site.send("HEAD", "/get-artifact", path=path, run_id=run)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(content))


@pytest.mark.parametrize(
    "path",
    [
        "no such file", "model", "model/", "", "/etc/passwd", "../x", "a/../../x", "%2e%2e/x", "%252e%252e/x",
        "a\\..\\b", "#", "file:///etc/passwd", "notes.txt/", "C:\\x", "%5c%5cx",
    ],
)  # fmt: skip
def test_what_is_no_file_is_refused_as_by_stock(site: Site, stock: Stock, run: str, path: str) -> None:
    theirs = stock.send("/get-artifact", path=path, run_id=run)
    ours = site.send("GET", "/get-artifact", path=path, run_id=run)
    assert ours.json.keys() == {"error_code", "message"}
    if theirs.status < 500:
        assert (ours.status, ours.json["error_code"]) == (theirs.status, theirs.json["error_code"])
    else:
        assert 400 <= ours.status < 500


def test_owner_that_does_not_exist_is_not_found(site: Site, stock: Stock, run: str) -> None:
    asked: tuple[tuple[str, dict[str, Any]], ...] = (
        ("/get-artifact", {"run_id": "0" * 32, "path": "x"}),
        ("/get-artifact", {"path": "x"}),
        ("/model-versions/get-artifact", {"name": "none", "version": "1", "path": "MLmodel"}),
        ("/ajax-api/2.0/mlflow/logged-models/m-0/artifacts/files", {"artifact_file_path": "x"}),
        ("/ajax-api/2.0/mlflow/get-trace-artifact", {"request_id": "tr-0"}),
        ("/ajax-api/3.0/mlflow/get-trace-artifact", {"request_id": "tr-0", "path": "x"}),
        ("/model-versions/get-artifact", {"name": "none", "version": "one", "path": "MLmodel"}),
    )
    for path, query in asked:
        theirs, ours = stock.send(path, **query), site.send("GET", path, **query)
        assert (ours.status, ours.json["error_code"]) == (theirs.status, theirs.json["error_code"]), path
    wrong: tuple[dict[str, Any], ...] = (
        {},
        {"run_id": run},
        {"run_id": run, "path": "a\0b"},
        {"run_id": "\0", "path": "x"},
    )
    for query in wrong:
        assert site.send("GET", "/get-artifact", **query).status == 400


def test_logged_models_and_versions_have_their_files(site: Site) -> None:
    registry = site.registry
    made = registry.post("logged-models", {"experiment_id": "0", "name": "net"})["model"]["info"]
    prefix = made["artifact_uri"].removeprefix(f"s3://{registry.store.bucket}/")
    source = registry.store.write_model(prefix, {"MLmodel": b"flavors: {}\n"})
    path = f"/ajax-api/2.0/mlflow/logged-models/{made['model_id']}/artifacts/files"
    assert site.send("GET", path, artifact_file_path="MLmodel").body == b"flavors: {}\n"
    assert site.send("GET", path, artifact_file_path="../x").status == 400
    assert site.send("GET", path, artifact_file_path="a\r\nset-cookie: x").status == 400

    name = registry.new_model(f"m {secrets.token_hex(4)}")
    for fields in ({}, {"model_id": made["model_id"]}):
        version = registry.register(name, source, **fields)["version"]
        got = site.send("GET", "/model-versions/get-artifact", name=name, version=version, path="MLmodel")
        assert (got.status, got.body) == (200, b"flavors: {}\n")
    registry.send("POST", "registered-models/alias", {"name": name, "alias": "best", "version": "1"})
    registry.until_sealed(name)
    got = site.send("GET", "/model-versions/get-artifact", name=name, version="1", path="MLmodel")
    assert got.body == b"flavors: {}\n"
    registry.send("DELETE", f"logged-models/{made['model_id']}")
    assert site.send("GET", path, artifact_file_path="MLmodel").status == 404


@pytest.mark.parametrize(
    "place",
    ["s3://other-bucket/x", "s3://{bucket}/other", "s3://{bucket}/runs/../other", "uc:x\n{{}}", "/etc"],
)
def test_places_outside_of_the_artifact_root_are_never_read(site: Site, place: str) -> None:
    """Rows from before the server refused them, or written by somebody else."""
    run, _ = site.registry.new_run()
    place = place.format(bucket=site.registry.store.bucket)
    site.registry.store.write_model("other", {"secret": b"secret"})
    site.registry.execute(f"UPDATE runs SET artifact_uri = '{place}' WHERE run_uuid = '{run}'")
    for answer in (
        site.send("GET", "/get-artifact", run_id=run, path="secret"),
        site.send(
            "POST", "/api/2.0/mlflow/artifacts/presigned-download-url", {"run_id": run, "path": "secret"}
        ),
    ):
        assert (answer.status, answer.json["error_code"]) == (403, "PERMISSION_DENIED")


def test_ranges_are_parts_of_the_file(site: Site) -> None:
    run = site.new_run({"digits": b"0123456789"})

    def ask(value: str, **more: str) -> tuple[int, bytes, str | None]:
        headers = {"Range": value, **more}
        got = site.send("GET", "/get-artifact", run_id=run, path="digits", headers=headers)
        return got.status, got.body if got.status < 300 else b"", got.headers.get("content-range")

    assert ask("bytes=2-4") == (206, b"234", "bytes 2-4/10")
    assert ask("bytes=7-") == (206, b"789", "bytes 7-9/10")
    assert ask("bytes=-2") == (206, b"89", "bytes 8-9/10")
    assert ask("bytes=8-99") == (206, b"89", "bytes 8-9/10")
    assert ask("bytes=10-")[0] == ask("bytes=-0")[0] == 416
    for whole in ("bytes=4-2", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b"):
        assert ask(whole) == (200, b"0123456789", None)
    etag = site.send("HEAD", "/get-artifact", run_id=run, path="digits").headers["etag"]
    assert ask("bytes=0-0", **{"If-Range": etag})[0] == 206
    assert ask("bytes=0-0", **{"If-Range": '"other"'})[0] == 200


def signed(site: Site, run: str) -> list[dict[str, Any]]:
    """The audit lines of presigned URLs of a run's files."""
    lines = (line for line in site.audit() if line["audit"] == "signed")
    return [line for line in lines if line["object"]["run_id"] == run]


def test_browser_is_sent_to_s3_for_what_is_large_and_a_line_says_so(site: Site) -> None:
    run, key = site.new_large(10 * 2**20 + 1)
    small = site.send("GET", "/get-artifact", person=True, run_id=site.new_run(FILES), path="notes.txt")
    assert small.status == 200
    assert site.send("HEAD", "/get-artifact", person=True, run_id=run, path="large.bin").status == 200
    assert site.send("GET", "/get-artifact", run_id=run, path="large.bin").status == 200
    assert not signed(site, run)

    sent = site.send("GET", "/get-artifact", person=True, run_id=run, path="large.bin")
    assert (sent.status, sent.headers["cache-control"]) == (307, "no-store")
    url = urlsplit(sent.headers["location"])
    assert "X-Amz-Expires=300" in url.query
    with urlopen(sent.headers["location"]) as answer:
        assert answer.headers["Content-Disposition"] == "attachment; filename=large.bin"
        assert len(answer.read()) == 10 * 2**20 + 1
    (line,) = signed(site, run)
    assert (line["principal"], line["status"]) == ("cognito:someone", 307)
    assert (line["object"]["key"], line["object"]["seconds"]) == (key, "300")
