"""An STS and a tracking server on loopback that note who asked them what."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from local.parts.token_issuer import SigningKey

ROLE = "arn:aws:iam::123456789012:role/team/trainer"


@dataclass
class Sts:
    """Answers GetWebIdentityToken as the API model of STS has it; the keys are its own."""

    subject: str = ROLE
    refusal: tuple[int, str, str] | None = None
    longest: int = 3600
    delay: float = 0.0
    calls: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    key: SigningKey = field(default_factory=SigningKey.generate)

    def answer(self, parameters: dict[str, str]) -> tuple[int, str]:
        self.calls.append(parameters)
        time.sleep(self.delay)
        seconds = int(parameters["DurationSeconds"])
        if self.refusal is not None:
            return self.refusal[0], _error(*self.refusal[1:])
        if seconds > self.longest:
            return 403, _error("SessionDurationEscalationException", "beyond the session")
        expires = int(time.time()) + seconds
        token = self.key.sign(
            {
                "iss": "https://issuer.example",
                "sub": self.subject,
                "aud": parameters["Audience.member.1"],
                "exp": expires,
                "jti": str(len(self.calls)),
            }
        )
        moment = datetime.fromtimestamp(expires, UTC).isoformat().replace("+00:00", "Z")
        return 200, (
            '<GetWebIdentityTokenResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            f"<GetWebIdentityTokenResult><WebIdentityToken>{token}</WebIdentityToken>"
            f"<Expiration>{moment}</Expiration></GetWebIdentityTokenResult>"
            "</GetWebIdentityTokenResponse>"
        )


def _error(code: str, message: str) -> str:
    return (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    )


@dataclass
class Tracking:
    """A tracking server that answers what it is told to and keeps every Authorization header it was sent."""

    answers: dict[str, tuple[int, object]] = field(default_factory=dict)
    redirect: str = ""
    authorizations: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving_sts(sts: Sts) -> Iterator[Sts]:
    class Handler(_Quiet):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, text = sts.answer({name: values[0] for name, values in parse_qs(body).items()})
            self.reply(status, text, "text/xml")

    with _serving(Handler) as sts.url:
        yield sts


@contextmanager
def serving_tracking(tracking: Tracking) -> Iterator[Tracking]:
    class Handler(_Quiet):
        def do_GET(self) -> None:
            tracking.authorizations.append(self.headers.get("Authorization"))
            if tracking.redirect:
                self.send_response(307)
                self.send_header("Location", tracking.redirect + self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            status, body = tracking.answers.get(self.path.partition("?")[0], (404, {}))
            self.reply(status, body if isinstance(body, str) else json.dumps(body), "application/json")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.do_GET()

    with _serving(Handler) as tracking.url:
        yield tracking


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None: ...

    def reply(self, status: int, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
