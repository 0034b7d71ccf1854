"""How much SQLAlchemy remembers of the statements that it has compiled."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

_MOST_CHARACTERS = 300_000


class CompiledStatements:
    """A `compiled_cache` for an engine, with the statements used last, up to 300,000 characters of SQL.

    SQLAlchemy's own counts statements, and keeps 500 whatever their size: a search with 20 conditions takes
    0.8 MB, and there are millions of different ones.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, Any] = OrderedDict()
        self._characters = 0
        # MLflow's threads share it.
        self._lock = Lock()

    def get(self, key: Any) -> Any:
        """The statement with this key, or None."""
        with self._lock:
            compiled = self._kept.get(key)
            if compiled is not None:
                self._kept.move_to_end(key)
            return compiled

    def __setitem__(self, key: Any, compiled: Any) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = compiled
            self._characters += len(compiled.string)
            while self._characters > _MOST_CHARACTERS:
                self._characters -= len(self._kept.popitem(last=False)[1].string)
