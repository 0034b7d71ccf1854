"""Work that takes more than a few milliseconds, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

FEW_ITEMS = 2_000
"""As many points, params and tags are rendered at once, in about 2 ms."""

_Result = TypeVar("_Result")


class Aside:
    """One thread: it and the event loop take the interpreter by turns; with several, the loop comes last."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        """The result of `work`; one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


ANSWERS = Aside("answers")
"""Reads questions that are allowed, and renders their answers."""
BODIES = Aside("bodies")
"""Judges bodies, of which many are refused: no answer waits for them."""
