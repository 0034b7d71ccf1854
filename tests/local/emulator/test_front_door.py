"""The front door before PostgreSQL takes over, and clients that do not sign in."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from local.emulator.front_door import FrontDoor, Refusal
from local.parts.certificates import CertificateAuthority

SSL_REQUEST = struct.pack("!II", 8, 80877103)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[FrontDoor]:
    certificate = CertificateAuthority.create(tmp_path / "ca", name="Test").issue("localhost", name="door")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate.certificate, certificate.key)
    door = FrontDoor(
        host="127.0.0.1",
        port=0,
        tls=tls,
        socket=tmp_path / "nobody.listens.here",
        judge=lambda _user, _token: Refusal("never"),
        startup_seconds=0.3,
    )
    await door.start()
    yield door
    await door.close()


async def talk(door: FrontDoor, *sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    for each in sent:
        writer.write(each)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


async def test_a_silent_client_is_disconnected(door: FrontDoor) -> None:
    assert await talk(door) == b""


async def test_a_client_that_is_silent_after_asking_for_tls_is_disconnected(door: FrontDoor) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(SSL_REQUEST)
    assert await reader.readexactly(1) == b"S"
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_kerberos_encryption_is_declined(door: FrontDoor) -> None:
    assert (await talk(door, struct.pack("!II", 8, 80877104))).startswith(b"N")


async def test_bytes_smuggled_in_before_the_handshake_are_refused(door: FrontDoor) -> None:
    assert await talk(door, SSL_REQUEST + b"smuggled") == b""


async def test_a_packet_of_absurd_length_is_refused(door: FrontDoor) -> None:
    assert await talk(door, struct.pack("!II", 2**31, 196608)) == b""


async def test_an_unknown_protocol_is_refused_with_a_reason(door: FrontDoor) -> None:
    assert b"unsupported frontend protocol 2.0" in await talk(door, struct.pack("!II", 8, 2 << 16))


async def test_closing_closes_open_connections(door: FrontDoor) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    await asyncio.sleep(0.05)
    await door.close()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
