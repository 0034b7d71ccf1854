"""Compressed bodies, decompressed no further than a limit."""

from __future__ import annotations

import zlib

from mlflow_aws_server.errors import BodyError
from mlflow_aws_server.limits import MEMBERS, Limit

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
# What follows a member is copied once for each member.
_PIECE = 16 * 1024


def decode(body: bytes, encoding: str, limit: Limit) -> bytes:
    """The plain body: gzip of one or more members, or deflate with or without zlib's header, as MLflow takes.

    Raises:
        LimitError: the plain body is beyond `limit`; not more than that was decompressed.
        BodyError: the body is not whole, or followed by something else.
    """
    try:
        if encoding == "gzip":
            return _gunzip(body, limit)
        try:
            return _inflate(body, _ZLIB, limit)
        except zlib.error:
            return _inflate(body, _RAW, limit)
    except (zlib.error, EOFError):
        raise BodyError(
            400, f"The body cannot be decompressed; its Content-Encoding is {encoding}."
        ) from None


def _gunzip(body: bytes, limit: Limit) -> bytes:
    plain = bytearray()
    at, members = 0, 0
    while at < len(body):
        if members and not body[at:].strip(b"\0"):
            break  # gzip allows zeros behind the last member.
        members += 1
        MEMBERS.check(members)
        at = _member(body, at, _GZIP, plain, limit)
    return bytes(plain)


def _inflate(body: bytes, window: int, limit: Limit) -> bytes:
    plain = bytearray()
    _member(body, 0, window, plain, limit)
    return bytes(plain)


def _member(body: bytes, at: int, window: int, plain: bytearray, limit: Limit) -> int:
    """Decompress one stream, which begins at `at`, behind `plain`; returns where it ends."""
    stream = zlib.decompressobj(window)
    while not stream.eof:
        piece = stream.unconsumed_tail or body[at : at + _PIECE]
        if not piece:
            raise EOFError
        if not stream.unconsumed_tail:
            at += len(piece)
        plain += stream.decompress(piece, limit.most + 1 - len(plain))
        limit.check(len(plain))
    return at - len(stream.unused_data)
