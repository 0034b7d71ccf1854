"""What the processes of a task tell each other: each has a slot in memory that they share since the fork.

No file, no socket, nothing to clean up: what a process that ended has counted is still there for the one that
takes its place, and goes on counting from it.
"""

from __future__ import annotations

import mmap
import multiprocessing
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import orjson

from mlflow_aws_server.metrics.recorder import Call, Counted

# As many as a task may have; pages that nobody has written to cost nothing.
_SLOTS = 64
_SLOT_BYTES = 1 << 20
# Which half has the document, its length and its checksum.
_HEAD = struct.Struct("<III")
_HALF_BYTES = (_SLOT_BYTES - _HEAD.size) // 2
_ATTEMPTS = 3

Snapshot = dict[str, Any]


class Slots:
    """A document of each process, which only that one writes, and all read."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SLOTS * _SLOT_BYTES)

    def write(self, slot: int, document: bytes) -> None:
        """Replace a process's document.

        Raises:
            ValueError: there is no room for it; the former one stays.
        """
        if slot >= _SLOTS or len(document) > _HALF_BYTES:
            raise ValueError(f"{len(document)} bytes do not fit into the slot of process {slot}")
        begin = slot * _SLOT_BYTES
        # Whoever reads meanwhile, or after this process is killed here, reads the former one.
        half = 1 - _HEAD.unpack_from(self._memory, begin)[0]
        text = begin + _HEAD.size + half * _HALF_BYTES
        self._memory[text : text + len(document)] = document
        _HEAD.pack_into(self._memory, begin, half, len(document), zlib.crc32(document))

    def read(self, slot: int) -> bytes | None:
        """A process's document; None if there is none, or it is being written each time."""
        begin = slot * _SLOT_BYTES
        for _ in range(_ATTEMPTS):
            half, length, checksum = _HEAD.unpack_from(self._memory, begin)
            text = begin + _HEAD.size + half * _HALF_BYTES
            document = self._memory[text : text + length]
            if length and zlib.crc32(document) == checksum:
                return document
        return None

    def all(self) -> Iterator[tuple[int, bytes]]:
        """The documents, with their slots."""
        for slot in range(_SLOTS):
            if (document := self.read(slot)) is not None:
                yield slot, document


class _Shared:
    slots: Slots | None = None


def share() -> None:
    """Make the memory that workers forked from now on share."""
    _Shared.slots = Slots()


def slots() -> Slots | None:
    """The task's, or None in a process that is the only one."""
    return _Shared.slots


def own_slot() -> int:
    """The slot of this process, which is named after it; 0 for one that is the only one."""
    name = multiprocessing.current_process().name
    return int(name) if name.isdigit() else 0


def encode(counted: Counted, **more: object) -> bytes:
    """A process's document."""
    return orjson.dumps({
        "calls": [[*call, number] for call, number in counted.calls.items()],
        "spent": [[*key, *spent] for key, spent in counted.spent.items()],
        "counts": counted.counts,
        **more,
    })  # fmt: skip


def decode(document: bytes) -> tuple[Counted, Snapshot]:
    """What a process has counted, and what more its document says."""
    more = orjson.loads(document)
    counted = Counted(
        calls={Call(*call): number for *call, number in more.pop("calls")},
        spent={(method, route, place): (n, s) for method, route, place, n, s in more.pop("spent")},
    )
    counted.counts.update(more.pop("counts"))
    return counted, more
