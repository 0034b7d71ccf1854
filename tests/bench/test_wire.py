from __future__ import annotations

import pytest

from bench.wire import Wire


def test_plain_http_stays_plain_and_https_is_verified() -> None:
    assert Wire.to("http://127.0.0.1:5000").tls is None
    tls = Wire.to("https://mlflow.example.com").tls
    assert tls is not None
    assert tls.check_hostname


@pytest.mark.parametrize("url", ["127.0.0.1:5000", "ftp://host", "https://", "file:///tmp/mlruns"])
def test_a_url_that_is_not_http_is_refused_with_its_value(url: str) -> None:
    with pytest.raises(ValueError, match=r"http\(s\)"):
        Wire.to(url)


def test_the_host_header_can_be_another_than_the_address() -> None:
    request = Wire("127.0.0.1", 5000, headers={"Host": "mlflow.example.com"}).get("/x")
    assert b"Host: mlflow.example.com\r\n" in request
    assert request.count(b"Host:") == 1


def test_query_values_are_quoted() -> None:
    assert Wire("h", 80).get("/x", key="a b/ü").startswith(b"GET /x?key=a%20b%2F%C3%BC HTTP/1.1\r\n")


def test_a_token_is_sent_and_not_shown() -> None:
    wire = Wire.to("http://127.0.0.1:5000/prefix/", headers={"Authorization": "Bearer abc"})
    assert b"POST /prefix/x HTTP/1.1\r\n" in wire.poster("/x")(b"{}")
    assert b"Authorization: Bearer abc\r\n" in wire.poster("/x")(b"{}")
    assert "abc" not in repr(wire)
