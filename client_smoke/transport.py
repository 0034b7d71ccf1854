"""Steps about the connection itself, with real handshakes."""

from __future__ import annotations

import socket
import ssl
import time
import warnings

from client_smoke.smoke import Smoke
from client_smoke.verdict import CannotRun, StepFailed

_SECONDS_PER_DAY = 86_400
# OpenSSL's X509_V_ERR_*: the certificate itself is wrong, whoever issued it.
_NOT_YET_VALID, _EXPIRED, _WRONG_HOST, _WRONG_ADDRESS = 9, 10, 62, 64
# The issuer is not among those this client trusts.
_UNKNOWN_ISSUER = {2, 18, 19, 20, 21}
_PROBE_PORT_80_SECONDS = 3.0


def certificate_is_valid(smoke: Smoke) -> str:
    """Shake hands as a careful client does: host name, dates and chain are checked against trusted CAs."""
    context = ssl.create_default_context(cafile=smoke.ca_file)
    try:
        with (
            _connect(smoke) as plain,
            context.wrap_socket(plain, server_hostname=smoke.target.host) as secure,
        ):
            certificate = secure.getpeercert() or {}
            protocol = secure.version()
    except ssl.SSLCertVerificationError as error:
        raise _untrusted(smoke, error) from error
    except ssl.SSLError as error:
        raise StepFailed(
            f"the TLS handshake failed: {error.reason or error}",
            next_action="check that the load balancer's listener on this port is HTTPS with a TLS 1.3 policy",
        ) from error
    except OSError as error:
        raise _unreachable(smoke, error) from error
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / _SECONDS_PER_DAY
    return f"{protocol}, valid for {smoke.target.host}, {days:.0f} days left"


def only_tls_1_3(smoke: Smoke) -> str:
    """Offer TLS 1.3 alone, which must work, then everything older, which must be refused."""
    modern = ssl.create_default_context(cafile=smoke.ca_file)
    modern.minimum_version = ssl.TLSVersion.TLSv1_3
    fix = "give the HTTPS listener the policy ELBSecurityPolicy-TLS13-1-3-2021-06 (SslPolicy.TLS13_13)"
    try:
        with _connect(smoke) as plain, modern.wrap_socket(plain, server_hostname=smoke.target.host) as secure:
            cipher = (secure.cipher() or ("an unknown cipher",))[0]
    except (ssl.SSLError, ConnectionError) as error:
        raise StepFailed(f"a TLS 1.3 handshake was refused: {error}", next_action=fix) from error
    try:
        with _connect(smoke) as plain, _up_to_tls_1_2().wrap_socket(plain) as secure:
            accepted = secure.version()
    except TimeoutError as error:
        raise StepFailed(
            f"an older handshake got no answer within {smoke.timeout:g} s, so nothing refused it",
            next_action="look for something between you and the load balancer that swallows packets",
        ) from error
    except (ssl.SSLError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        return f"TLS 1.3 with {cipher}; TLS 1.0 to 1.2 refused ({str(reason).lower().replace('_', ' ')})"
    raise StepFailed(f"the server accepted {accepted}", next_action=fix)


def no_plain_http(smoke: Smoke) -> str:
    """Speak plain HTTP to the port, and to port 80 beside the standard port: nobody may serve or redirect."""
    fix = "remove the HTTP listener: a redirect comes after the token has already left unencrypted"
    answer = _plain_request(smoke, smoke.target.port, timeout=smoke.timeout)
    if _serves(answer):
        raise StepFailed(f"port {smoke.target.port} answered plain HTTP: {answer}", next_action=fix)
    refusal = answer or "the connection was closed"
    if smoke.target.port != 443:
        return f"port {smoke.target.port}: {refusal}"
    try:
        answer = _plain_request(smoke, 80, timeout=min(smoke.timeout, _PROBE_PORT_80_SECONDS))
    except CannotRun:
        return f"port 443: {refusal}; port 80 is closed"
    raise StepFailed(f"port 80 is open and answered: {answer or 'nothing'}", next_action=fix)


def _connect(smoke: Smoke, port: int | None = None, timeout: float | None = None) -> socket.socket:
    address = (smoke.target.host, smoke.target.port if port is None else port)
    return socket.create_connection(address, timeout=smoke.timeout if timeout is None else timeout)


def _up_to_tls_1_2() -> ssl.SSLContext:
    # Only the protocol is in question here, and nothing is sent over this connection.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # At OpenSSL's default security level this client would not even offer TLS 1.0 and 1.1.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def _plain_request(smoke: Smoke, port: int, *, timeout: float) -> str:
    """The status line that answered, or an empty string if the peer hung up or sent no HTTP."""
    host = smoke.target.host
    try:
        connection = _connect(smoke, port, timeout)
    except OSError as error:
        raise _unreachable(smoke, error) from error
    with connection:
        try:
            connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = connection.recv(1024)
        except (ConnectionError, TimeoutError):
            return ""
    if not answer.startswith(b"HTTP/"):
        return ""
    return answer.splitlines()[0].decode("latin-1").strip()


def _serves(status_line: str) -> bool:
    # A load balancer tells a plain-text client with 400 that this is an HTTPS port; anything else serves.
    return bool(status_line) and status_line.split()[1:2] != ["400"]


def _untrusted(smoke: Smoke, error: ssl.SSLCertVerificationError) -> StepFailed | CannotRun:
    host = smoke.target.host
    if error.verify_code in _UNKNOWN_ISSUER:
        return CannotRun(
            f"the certificate of {host} was issued by a CA that this client does not know "
            f"({error.verify_message}; trusted: {smoke.ca_file})",
            next_action="if it is your own CA, set MLFLOW_TRACKING_SERVER_CERT_PATH=/path/to/ca.pem; "
            "if not, somebody else answers for this host: send no credentials",
        )
    remedies = {
        _EXPIRED: "renew it: ACM does so by itself while its DNS validation record is in place",
        _NOT_YET_VALID: "check the clock of this machine, then the certificate's dates",
        _WRONG_HOST: "use the host name of the certificate, or deploy a certificate for this one",
        _WRONG_ADDRESS: "use the host name of the certificate, not an IP address",
    }
    return StepFailed(
        f"the certificate is not valid: {error.verify_message}",
        next_action=remedies.get(error.verify_code, "deploy a certificate that clients can verify"),
    )


def _unreachable(smoke: Smoke, error: OSError) -> CannotRun:
    where = f"{smoke.target.host}:{smoke.target.port}"
    if isinstance(error, socket.gaierror):
        return CannotRun(
            f"the host name {smoke.target.host} cannot be resolved",
            next_action="check its spelling, the alias record of the deployment, and your DNS",
        )
    if isinstance(error, TimeoutError):
        return CannotRun(
            f"{where} did not answer within {smoke.timeout:g} s",
            next_action="check the load balancer's security group and scheme (internal needs a VPN), "
            "or raise --timeout",
        )
    return CannotRun(
        f"{where} cannot be reached: {error.strerror or error}",
        next_action="check the address and that the deployment (or `make up`) is running",
    )
