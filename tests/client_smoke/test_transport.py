from __future__ import annotations

import datetime as dt
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from client_smoke.smoke import Smoke
from client_smoke.target import TrackingTarget
from client_smoke.transport import certificate_is_valid, no_plain_http, only_tls_1_3
from client_smoke.verdict import CannotRun, StepFailed
from local.parts.certificates import CertificateAuthority, ServerCertificate
from tests.client_smoke.deployment import Front, free_port, server_context

Offline = Callable[..., Smoke]


@contextmanager
def tls_server(
    issued: ServerCertificate,
    *,
    oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> Iterator[int]:
    context = server_context(issued.certificate, issued.key, oldest=oldest)
    context.maximum_version = newest
    with answering(b"") as upstream, Front(upstream, context) as front:
        yield front.port


@contextmanager
def answering(answer: bytes | None) -> Iterator[int]:
    """A plain TCP server that reads a little, answers this (None: never) and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.settimeout(5)
                    if answer is None:
                        stop.wait(10)
                    else:
                        client.recv(4096)
                        client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)


def test_valid_certificate_is_reported_with_its_days_left(
    certificate: ServerCertificate, offline: Offline
) -> None:
    with tls_server(certificate) as port:
        assert re.fullmatch(
            r"TLSv1\.3, valid for localhost, (29|30) days left", certificate_is_valid(offline(port=port))
        )


def test_expired_certificate_fails_the_step(authority: CertificateAuthority, offline: Offline) -> None:
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=10)
    expired = authority.issue("localhost", name="expired", not_before=long_ago, lifetime=dt.timedelta(days=5))
    with tls_server(expired) as port, pytest.raises(StepFailed) as broken:
        certificate_is_valid(offline(port=port))
    assert "expired" in broken.value.seen
    assert "renew" in broken.value.next_action


def test_certificate_of_another_host_fails_the_step(
    authority: CertificateAuthority, offline: Offline
) -> None:
    other = authority.issue("mlflow.example.com", name="other")
    with tls_server(other) as port, pytest.raises(StepFailed) as broken:
        certificate_is_valid(offline(port=port))
    assert "Hostname mismatch" in broken.value.seen


def test_unknown_authority_cannot_run_and_names_the_setting(
    tmp_path_factory: pytest.TempPathFactory, offline: Offline
) -> None:
    stranger = CertificateAuthority.create(tmp_path_factory.mktemp("stranger"), name="Stranger")
    with tls_server(stranger.issue("localhost", name="s")) as port, pytest.raises(CannotRun) as refusal:
        certificate_is_valid(offline(port=port))
    assert "a CA that this client does not know" in refusal.value.seen
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in refusal.value.next_action


def test_port_that_speaks_no_tls_fails_the_step(offline: Offline) -> None:
    with answering(b"HTTP/1.1 200 OK\r\n\r\n") as port, pytest.raises(StepFailed) as broken:
        certificate_is_valid(offline(port=port))
    assert "handshake failed" in broken.value.seen


def test_closed_port_cannot_run(offline: Offline) -> None:
    with pytest.raises(CannotRun, match="cannot be reached: Connection refused"):
        certificate_is_valid(offline(port=free_port()))


def test_server_that_stays_silent_cannot_run_after_the_timeout(offline: Offline) -> None:
    with answering(None) as port, pytest.raises(CannotRun, match=r"did not answer within 0\.2 s"):
        certificate_is_valid(offline(port=port, timeout=0.2))


def test_host_that_does_not_exist_cannot_run(offline: Offline, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    smoke = offline()
    smoke.target = TrackingTarget("nobody.invalid", 443)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(CannotRun, match=r"nobody\.invalid cannot be resolved"):
        certificate_is_valid(smoke)


def test_tls_1_3_only_server_passes(certificate: ServerCertificate, offline: Offline) -> None:
    with tls_server(certificate) as port:
        assert "TLS 1.0 to 1.2 refused" in only_tls_1_3(offline(port=port))


def test_server_that_also_accepts_tls_1_2_fails_the_step(
    certificate: ServerCertificate, offline: Offline
) -> None:
    with (
        tls_server(certificate, oldest=ssl.TLSVersion.TLSv1_2) as port,
        pytest.raises(StepFailed) as broken,
    ):
        only_tls_1_3(offline(port=port))
    assert broken.value.seen == "the server accepted TLSv1.2"
    assert "TLS13" in broken.value.next_action


def test_server_without_tls_1_3_fails_the_step(certificate: ServerCertificate, offline: Offline) -> None:
    with (
        tls_server(certificate, oldest=ssl.TLSVersion.TLSv1_2, newest=ssl.TLSVersion.TLSv1_2) as port,
        pytest.raises(StepFailed, match=r"a TLS 1\.3 handshake was refused"),
    ):
        only_tls_1_3(offline(port=port))


def test_tls_port_that_hangs_up_on_plain_http_passes(
    certificate: ServerCertificate, offline: Offline
) -> None:
    with tls_server(certificate) as port:
        assert no_plain_http(offline(port=port)) == f"port {port}: the connection was closed"


def test_load_balancer_that_answers_plain_http_with_400_passes(offline: Offline) -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\nServer: awselb/2.0\r\n\r\n") as port:
        assert "400 Bad Request" in no_plain_http(offline(port=port))


@pytest.mark.parametrize("status", ["200 OK", "301 Moved Permanently", "401 Unauthorized"])
def test_port_that_serves_plain_http_fails_the_step(status: str, offline: Offline) -> None:
    with answering(f"HTTP/1.1 {status}\r\n\r\n".encode()) as port, pytest.raises(StepFailed) as broken:
        no_plain_http(offline(port=port))
    assert status in broken.value.seen


@pytest.mark.parametrize("redirects", [True, False])
def test_port_80_beside_443_must_be_closed(
    redirects: bool, offline: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    smoke = offline()
    smoke.target = TrackingTarget("localhost", 443)
    connect = socket.create_connection
    with answering(b"") as secure, answering(b"HTTP/1.1 301 Moved\r\n\r\n") as plain:
        ports = {443: secure, 80: plain if redirects else free_port()}
        monkeypatch.setattr(
            socket,
            "create_connection",
            lambda address, **options: connect(("127.0.0.1", ports[address[1]]), **options),
        )
        if redirects:
            with pytest.raises(StepFailed, match="port 80 is open"):
                no_plain_http(smoke)
        else:
            assert no_plain_http(smoke).endswith("port 80 is closed")
