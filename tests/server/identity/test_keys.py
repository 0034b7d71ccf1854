"""The keys of an issuer: bounded, fetched rarely, kept through an outage."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from mlflow_aws_server.identity.errors import IssuerUnavailableError
from mlflow_aws_server.identity.keys import Keys, KeyStore, fetch_keys, read_keys

from local.parts.certificates import CertificateAuthority
from local.parts.token_issuer import SigningKey
from tests.server.conftest import Identity

_DAY = 24 * 3600.0


@pytest.fixture(scope="module")
def keys() -> tuple[SigningKey, SigningKey]:
    return SigningKey.generate(), SigningKey.generate()


@dataclass
class _Issuer:
    """Publishes keys; counts how often it is asked."""

    published: list[SigningKey]
    available: bool = True
    asked: int = 0
    answering: threading.Event = field(default_factory=threading.Event)
    now: float = 1_000.0

    def __post_init__(self) -> None:
        self.answering.set()
        self.store = KeyStore(self.fetch, name="https://issuer.example", clock=lambda: self.now)

    def fetch(self) -> Keys:
        self.asked += 1
        assert self.answering.wait(30)
        if not self.available:
            raise ConnectionRefusedError("nobody listens")
        return {key.key_id: key.private.public_key() for key in self.published}


async def test_keys_are_fetched_once_for_all_who_wait(keys: tuple[SigningKey, SigningKey]) -> None:
    issuer = _Issuer([keys[0]])
    issuer.answering.clear()
    waiting = [asyncio.create_task(issuer.store.key(keys[0].key_id)) for _ in range(20)]
    await asyncio.sleep(0)
    issuer.answering.set()
    assert None not in await asyncio.gather(*waiting)
    assert issuer.asked == 1


async def test_caller_that_gives_up_does_not_take_the_keys_from_the_others(
    keys: tuple[SigningKey, SigningKey],
) -> None:
    issuer = _Issuer([keys[0]])
    issuer.answering.clear()
    first, second = (asyncio.create_task(issuer.store.key(keys[0].key_id)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0)
    issuer.answering.set()
    assert await second is not None


async def test_slow_issuer_does_not_hold_up_the_event_loop(keys: tuple[SigningKey, SigningKey]) -> None:
    issuer = _Issuer([keys[0]])
    issuer.answering.clear()
    waiting = asyncio.create_task(issuer.store.key(keys[0].key_id))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not waiting.done()
    issuer.answering.set()
    assert await waiting is not None


async def test_unknown_key_id_causes_one_fetch_and_a_new_key_is_found(
    keys: tuple[SigningKey, SigningKey],
) -> None:
    issuer = _Issuer([keys[0]])
    await issuer.store.key(keys[0].key_id)
    issuer.published.append(keys[1])
    issuer.now += 10
    assert await issuer.store.key(keys[1].key_id) is not None
    assert issuer.asked == 2


async def test_invented_key_ids_do_not_hammer_the_issuer(keys: tuple[SigningKey, SigningKey]) -> None:
    issuer = _Issuer([keys[0]])
    for number in range(1000):
        assert await issuer.store.key(f"invented-{number}") is None
    assert issuer.asked == 1
    issuer.now += 5
    for number in range(1000):
        assert await issuer.store.key(f"invented-{number}") is None
    assert issuer.asked == 2


async def test_known_key_stays_good_while_the_issuer_is_out_of_reach(
    keys: tuple[SigningKey, SigningKey],
) -> None:
    issuer = _Issuer([keys[0]])
    await issuer.store.key(keys[0].key_id)
    issuer.available = False
    issuer.now += _DAY - 1
    assert issuer.store.age == _DAY - 1
    assert await issuer.store.key(keys[0].key_id) is not None


async def test_key_is_not_believed_for_ever(keys: tuple[SigningKey, SigningKey]) -> None:
    issuer = _Issuer([keys[0]])
    await issuer.store.key(keys[0].key_id)
    issuer.available = False
    issuer.now += _DAY
    with pytest.raises(IssuerUnavailableError):
        await issuer.store.key(keys[0].key_id)
    issuer.available = True
    issuer.now += 5
    assert await issuer.store.key(keys[0].key_id) is not None


async def test_unknown_key_during_an_outage_is_not_a_verdict(keys: tuple[SigningKey, SigningKey]) -> None:
    issuer = _Issuer([keys[0]])
    await issuer.store.key(keys[0].key_id)
    issuer.available = False
    issuer.now += 10
    with pytest.raises(IssuerUnavailableError):
        await issuer.store.key(keys[1].key_id)
    assert await issuer.store.key(keys[0].key_id) is not None


async def test_start_without_the_issuer_recovers_and_asks_seldom(keys: tuple[SigningKey, SigningKey]) -> None:
    issuer = _Issuer([keys[0]], available=False)
    for _ in range(100):
        with pytest.raises(IssuerUnavailableError):
            await issuer.store.key(keys[0].key_id)
    assert issuer.asked == 1
    issuer.available = True
    issuer.now += 5
    # Since there was somebody to miss them.
    assert issuer.store.age == 5
    assert await issuer.store.key(keys[0].key_id) is not None
    assert issuer.store.age == 0


async def test_withdrawn_key_is_gone_after_the_next_fetch(keys: tuple[SigningKey, SigningKey]) -> None:
    issuer = _Issuer([keys[0]])
    await issuer.store.key(keys[0].key_id)
    before = issuer.store.generation
    issuer.published = [keys[1]]
    issuer.now += 10
    assert await issuer.store.key(keys[1].key_id) is not None
    assert await issuer.store.key(keys[0].key_id) is None
    assert issuer.store.generation != before


async def test_same_keys_again_are_not_a_change(keys: tuple[SigningKey, SigningKey]) -> None:
    issuer = _Issuer([keys[0]])
    await issuer.store.key(keys[0].key_id)
    before = issuer.store.generation
    issuer.now += 10
    await issuer.store.key("unknown")
    assert (issuer.asked, issuer.store.generation) == (2, before)


async def test_keys_are_fetched_before_anybody_asks(keys: tuple[SigningKey, SigningKey]) -> None:
    issuer = _Issuer([keys[0]])
    upkeep = asyncio.create_task(issuer.store.keep_fresh())
    while issuer.store.generation == 0:
        await asyncio.sleep(0.001)
    upkeep.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upkeep
    assert issuer.asked == 1


def _document(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def test_only_rsa_keys_for_rs256_are_taken(keys: tuple[SigningKey, SigningKey]) -> None:
    good = keys[0].public_jwk
    others: list[Any] = [
        {**good, "kid": "encrypts", "use": "enc"},
        {**good, "kid": "another-algorithm", "alg": "RS512"},
        {**good, "kid": "elliptic", "kty": "EC"},
        {**good, "kid": "symmetric", "kty": "oct", "k": "c2VjcmV0"},
        {**good, "kid": "private", "d": "AQAB"},
        {**good, "kid": 7},
        {**good, "kid": "two\nlines"},
        {**good, "kid": "broken", "n": "!"},
        {**good, "kid": "exponent", "e": "Ag"},
        {key: value for key, value in good.items() if key != "kid"},
        "text",
    ]
    assert list(read_keys(_document(*others, good))) == [good["kid"]]


def test_short_keys_are_refused() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.raises(ValueError, match="no RSA key of 2048 bits"):
        read_keys(_document(SigningKey(private, "short").public_jwk))


def test_first_of_two_keys_of_one_id_counts(keys: tuple[SigningKey, SigningKey]) -> None:
    one, other = keys[0].public_jwk, {**keys[1].public_jwk, "kid": keys[0].key_id}
    (key,) = read_keys(_document(one, other)).values()
    assert key.public_numbers() == keys[0].private.public_key().public_numbers()


@pytest.mark.parametrize(
    "document", [b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": ' + b"[" * 60_000]
)
def test_answer_without_keys_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError, match="issuer"):
        read_keys(document)


def test_too_many_keys_are_refused(keys: tuple[SigningKey, SigningKey]) -> None:
    many = [{**keys[0].public_jwk, "kid": str(number)} for number in range(21)]
    with pytest.raises(ValueError, match="at most 20"):
        read_keys(_document(*many))


def test_keys_are_fetched_from_the_real_issuer(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(identity.ca_file))
    assert list(fetch_keys(identity.sts.url)) == [key.key_id for key in identity.sts.keys]


def test_issuer_without_a_trusted_certificate_is_not_believed(identity: Identity) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        fetch_keys(identity.sts.url)


def test_keys_never_come_in_the_clear() -> None:
    with pytest.raises(ValueError, match="https only"):
        fetch_keys("http://localhost:1")


@contextmanager
def _answering(directory: Path, status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    authority = CertificateAuthority.create(directory, name="Test")
    certificate = authority.issue("localhost", name="issuer")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate.certificate, certificate.key)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "headers", "body", "complaint"),
    [
        (302, {"Location": "https://evil.example/jwks.json"}, b"", "answered 302"),
        (500, {}, b"", "answered 500"),
        (200, {}, b" " * (64 * 1024 + 1), "more than 65536 bytes"),
        (200, {}, b"<html>", "not a JSON Web Key Set"),
    ],
)
def test_a_response_that_is_not_a_set_of_keys_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    body: bytes,
    complaint: str,
) -> None:
    with _answering(tmp_path / "ca", status, headers, body) as url:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca" / "ca.pem"))
        with pytest.raises(ValueError, match=complaint):
            fetch_keys(url)
