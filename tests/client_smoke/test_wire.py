from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from client_smoke.wire import watch


class Sink(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("body", [b"x" * 50_000, io.BytesIO(b"x" * 50_000)], ids=["bytes", "stream"])
def test_every_byte_is_counted_for_the_address_it_went_to(port: int, body: object) -> None:
    with watch() as traffic:
        requests.put(f"http://127.0.0.1:{port}/object", data=body, timeout=5)  # type: ignore[arg-type]
    assert 50_000 <= traffic.to("127.0.0.1", port) < 51_000
    assert traffic.elsewhere("127.0.0.1", port) == 0
    assert traffic.elsewhere("s3.example.com", 443) >= 50_000
    assert traffic.requests_to("127.0.0.1", port) == ["PUT /object HTTP/1.1"]


def test_nothing_is_recorded_after_the_block(port: int) -> None:
    with watch() as traffic:
        pass
    requests.put(f"http://127.0.0.1:{port}/object", data=b"late", timeout=5)
    assert traffic.sent.total() == 0


def test_bytes_of_other_threads_are_counted(port: int) -> None:
    with watch() as traffic:
        thread = threading.Thread(
            target=lambda: requests.put(f"http://127.0.0.1:{port}/object", data=b"x" * 1000, timeout=5)
        )
        thread.start()
        thread.join()
    assert traffic.to("127.0.0.1", port) >= 1000
