"""A process tree that is killed if it uses more memory than its task has, as ECS does."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import resources

# Version 1, and version 2; a container of its own usually may not make one.
_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")
_LOOK_SECONDS = 0.1


@dataclass
class MemoryLimit:
    """The limit; `enforced_by` says who kills beyond it."""

    most: int
    enforced_by: str
    _peak: int = 0
    _kills: int = 0
    _group: Path | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def within(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` under the limit."""
        if self._group is None:
            return list(command)
        return ["sh", "-c", f'echo $$ > {self._group}/cgroup.procs && exec "$@"', "sh", *command]

    @contextmanager
    def watching(self, root: int) -> Iterator[None]:
        """Without a cgroup, look at the tree's memory, and kill it beyond the limit."""
        if self._group is not None:
            yield
            return
        watcher = threading.Thread(target=self._watch, args=(root,))
        watcher.start()
        try:
            yield
        finally:
            self._stop.set()
            watcher.join()

    @property
    def peak(self) -> int:
        """The most that was used, in bytes; with a cgroup, file caches count."""
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            if self._group is not None and (self._group / name).is_file():
                return int((self._group / name).read_text())
        return self._peak

    @property
    def kills(self) -> int:
        """How often something was killed for its memory."""
        if self._group is None:
            return self._kills
        for name in ("memory.oom_control", "memory.events"):
            with contextlib.suppress(FileNotFoundError):
                found = re.search(r"^oom_kill (\d+)$", (self._group / name).read_text(), re.MULTILINE)
                return int(found[1]) if found else 0
        return 0

    def _watch(self, root: int) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            used, _ = resources.memory(root)
            self._peak = max(self._peak, used)
            if used > self.most:
                self._kills += 1
                for pid in resources.tree(root):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


@contextmanager
def memory_limit(most: int) -> Iterator[MemoryLimit]:
    """A cgroup with this limit in bytes, or else a watchdog."""
    group = _new_group(most)
    if group is None:
        yield MemoryLimit(most, "a watchdog")
        return
    try:
        yield MemoryLimit(most, "a cgroup", _group=group)
    finally:
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:
                # Its processes are just ending.
                time.sleep(0.1)


def _new_group(most: int) -> Path | None:
    name = f"mlflow-aws-{secrets.token_hex(4)}"
    for parent, limit in ((_V1, "memory.limit_in_bytes"), (_V2, "memory.max")):
        group = parent / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(most))
            return group
        except OSError:
            group.rmdir()
    return None
