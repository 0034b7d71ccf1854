"""The front door of the RDS instance: TLS and IAM tokens before PostgreSQL, as Amazon RDS has them.

Clients connect over TCP and must ask for TLS. PostgreSQL itself is behind a Unix socket, in a directory that
only this platform may enter, and decides how a user signs in. When it admits a member of `rds_iam` without a
password, the front door asks the client for a token and has it checked; for everybody else it passes
PostgreSQL's password exchange through.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

_SSL_REQUEST = 80877103
_GSS_REQUEST = 80877104
_CANCEL_REQUEST = 80877102
_PROTOCOL_3 = 3
# A start-up packet names a user, a database and some settings; PostgreSQL has the same limit.
_LONGEST_STARTUP = 10_000
# A token with a session token is about 1.5 KB; PostgreSQL accepts passwords up to this length.
_LONGEST_PASSWORD = 65_535
_CHUNK = 128 * 1024

T = TypeVar("T")

_AUTHENTICATION = b"R"
_AUTHENTICATION_OK = 0
_CLEARTEXT_PASSWORD = 3


@dataclass(frozen=True)
class Refusal:
    """Why a token was refused: for the log, never for the client."""

    reason: str


Judge = Callable[[str, str], Refusal | None]
"""(user, token) -> None if the token is good, or why not. May block; it runs in a thread."""


class FrontDoor:
    """Listens at the instance's endpoint until closed."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext,
        socket: Path,
        judge: Judge,
        log: Callable[[str], None] = lambda _line: None,
        startup_seconds: float = 30.0,
        most_starting: int = 200,
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._socket = socket
        self._judge = judge
        self._log = log
        self._startup_seconds = startup_seconds
        self._starting = asyncio.Semaphore(most_starting)
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._is_open = True

    @property
    def port(self) -> int:
        """The port it listens on; of use when it was given port 0."""
        assert self._server is not None  # noqa: S101 - after start()
        port = self._server.sockets[0].getsockname()[1]
        assert isinstance(port, int)  # noqa: S101 - AF_INET
        return port

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        self._server = await asyncio.start_server(
            self._accept, self._host, self._port, limit=_CHUNK, backlog=256
        )

    async def close(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
        await self.set_open(is_open=False)

    async def set_open(self, *, is_open: bool) -> None:
        """While it is not open, close every connection, and refuse new ones."""
        self._is_open = is_open
        if is_open:
            return
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio started us
        if not self._is_open:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            await _Session(self, reader, writer).run()
        except (OSError, EOFError, ValueError, ssl.SSLError, TimeoutError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()


class _Session:
    """One client's connection."""

    def __init__(self, door: FrontDoor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._door = door
        self._reader = reader
        self._writer = writer
        self._encrypted = False

    async def run(self) -> None:
        backend: asyncio.StreamWriter | None = None
        try:
            async with self._door._starting, asyncio.timeout(self._door._startup_seconds):
                opened = await self._start()
            if opened is None:
                return
            backend_reader, backend = opened
            await _splice(self._reader, self._writer, backend_reader, backend)
        finally:
            if backend is not None:
                backend.transport.abort()

    async def _start(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Run the start-up until PostgreSQL takes over; None if the connection ended before."""
        while True:
            packet = await self._startup_packet()
            code = struct.unpack_from("!I", packet, 4)[0]
            if code == _GSS_REQUEST:
                self._writer.write(b"N")
            elif code == _SSL_REQUEST and not self._encrypted:
                await self._encrypt()
            elif code == _CANCEL_REQUEST:
                # As in PostgreSQL, the secret key in the packet is all the permission it needs.
                await self._cancel(packet)
                return None
            elif code >> 16 == _PROTOCOL_3:
                return await self._sign_in(packet)
            else:
                await self._fail("08P01", f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}")
                return None

    async def _startup_packet(self) -> bytes:
        head = await self._reader.readexactly(4)
        length = struct.unpack("!I", head)[0]
        if not 8 <= length <= _LONGEST_STARTUP:
            raise ValueError("invalid length of startup packet")
        return head + await self._reader.readexactly(length - 4)

    async def _encrypt(self) -> None:
        if self._reader._buffer:  # type: ignore[attr-defined]
            # Data sent before the handshake is unprotected: an attacker may have put it there.
            raise ValueError("received unencrypted data after SSL request")
        self._writer.write(b"S")
        await self._writer.drain()
        await self._writer.start_tls(self._door._tls, ssl_handshake_timeout=self._door._startup_seconds)
        self._encrypted = True

    async def _sign_in(self, packet: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        parameters = _parameters(packet[8:])
        user = parameters.get("user", "")
        if not self._encrypted:
            # RDS's answer with rds.force_ssl=1.
            peer = self._writer.get_extra_info("peername")[0]
            await self._fail(
                "28000",
                f'no pg_hba.conf entry for host "{peer}", user "{user}", '
                f'database "{parameters.get("database", user)}", no encryption',
            )
            return None
        reader, writer = await asyncio.open_unix_connection(str(self._door._socket), limit=_CHUNK)
        try:
            writer.write(packet)
            kind, body = await _message(reader)
            while kind not in (_AUTHENTICATION, b"E"):
                # A notice, or the protocol version.
                self._writer.write(_framed(kind, body))
                kind, body = await _message(reader)
            welcome = kind == _AUTHENTICATION and struct.unpack_from("!I", body)[0] == _AUTHENTICATION_OK
            if welcome and not await self._token_is_good(user):
                await self._fail("28000", f'PAM authentication failed for user "{user}"')
                writer.transport.abort()
                return None
            self._writer.write(_framed(kind, body))
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    async def _token_is_good(self, user: str) -> bool:
        self._writer.write(_framed(_AUTHENTICATION, struct.pack("!I", _CLEARTEXT_PASSWORD)))
        await self._writer.drain()
        kind, body = await _message(self._reader, longest=_LONGEST_PASSWORD)
        if kind != b"p":
            self._door._log(f"{user}: sent no password")
            return False
        try:
            token = body.rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError:
            token = ""
        refusal = await asyncio.to_thread(self._door._judge, user, token)
        if refusal is not None:
            self._door._log(f"{user}: refused: {refusal.reason}")
        return refusal is None

    async def _cancel(self, packet: bytes) -> None:
        _, writer = await asyncio.open_unix_connection(str(self._door._socket))
        writer.write(packet)
        await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _fail(self, code: str, message: str) -> None:
        fields = {b"S": "FATAL", b"V": "FATAL", b"C": code, b"M": message}
        body = b"".join(key + value.encode() + b"\0" for key, value in fields.items()) + b"\0"
        self._writer.write(_framed(b"E", body))
        await self._writer.drain()
        # Close cleanly, so that the message arrives before the end of the connection.
        self._writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), 2)


class ThreadedFrontDoor:
    """A front door on an event loop of its own, so that a busy emulator does not slow the database."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="front-door")
        self._thread.start()
        try:
            self._run(self._door.start())
        except BaseException:
            self._end()
            raise

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._door.port

    def set_open(self, *, is_open: bool) -> None:
        """While it is not open, close every connection, and refuse new ones."""
        self._run(self._door.set_open(is_open=is_open))

    def close(self) -> None:
        """Stop listening and close every connection."""
        self._run(self._door.close())
        self._end()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


async def _message(reader: asyncio.StreamReader, *, longest: int = _LONGEST_PASSWORD) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    length = struct.unpack_from("!I", head, 1)[0]
    if not 4 <= length <= longest:
        raise ValueError("invalid length of message")
    return head[:1], await reader.readexactly(length - 4)


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _parameters(body: bytes) -> dict[str, str]:
    texts = [part.decode(errors="replace") for part in body.split(b"\0")]
    return dict(zip(texts[::2], texts[1::2], strict=False))


async def _splice(
    client_reader: asyncio.StreamReader,
    client: asyncio.StreamWriter,
    backend_reader: asyncio.StreamReader,
    backend: asyncio.StreamWriter,
) -> None:
    """Copy bytes both ways until either side ends; then end both."""
    directions = (
        asyncio.create_task(_copy(client_reader, backend)),
        asyncio.create_task(_copy(backend_reader, client)),
    )
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
    # PostgreSQL's last message, why it ends the session, may still be on its way to the client.
    with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
        client.close()
        await asyncio.wait_for(client.wait_closed(), 2)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
