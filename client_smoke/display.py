"""A live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from client_smoke.smoke import Step
from client_smoke.verdict import Result, Status

_MARKS = {
    Status.PASSED: ("✓", "green"),
    Status.KEPT: ("•", "yellow"),
    Status.SKIPPED: ("-", "dim"),
    Status.FAILED: ("✗", "bold red"),
    Status.COULD_NOT_RUN: ("!", "bold yellow"),
    Status.INTERRUPTED: ("!", "bold yellow"),
}
_PLAIN_WIDTH = 150


class Screen:
    """Shows steps as they happen; a context manager, so that the terminal is whole again afterwards."""

    def __init__(self, stream: TextIO, *, total: int) -> None:
        self._console = Console(file=stream, highlight=False, width=None if stream.isatty() else _PLAIN_WIDTH)
        self._total = total
        self._results: list[Result] = []
        self._running: Step | None = None
        self._started = 0.0
        self._spinner = Spinner("dots")
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._moving_table,
                console=self._console,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._results:
            self._console.print()
        if self._results:
            self._console.print(self._final_table())

    def begin(self, step: Step) -> None:
        """A step starts."""
        self._running, self._started = step, time.perf_counter()
        if self._live is None:
            self._print(f"[{len(self._results) + 1:2}/{self._total}] {step.title} …")

    def end(self, result: Result) -> None:
        """A step ended or was left out."""
        was_running = self._running is not None
        self._running = None
        self._results.append(result)
        if self._live is not None:
            return
        if not was_running:
            self._print(f"[{len(self._results):2}/{self._total}] {result.title} …")
        evidence = result.observed or result.seen
        self._print(
            f"        {result.status.words} in {result.seconds:.2f} s" + (f": {evidence}" if evidence else "")
        )

    def _print(self, text: str) -> None:
        # Written past rich's wrapping, at once: a log reader wants whole lines, now.
        self._console.file.write(text + "\n")
        self._console.file.flush()

    def _moving_table(self) -> Table:
        """As much of the end as the terminal is high, one line a step."""
        table = _empty_table()
        for result in self._results[-max(1, self._console.height - 4) :]:
            table.add_row(*_row(result, one_line=True))
        if self._running is not None:
            elapsed = f"{time.perf_counter() - self._started:.0f}"
            position = f"step {len(self._results) + 1} of {self._total}"
            table.add_row(self._spinner, Text(self._running.title), elapsed, Text(position, "dim"))
        return table

    def _final_table(self) -> Table:
        table = _empty_table()
        for result in self._results:
            table.add_row(*_row(result, one_line=False))
        return table


def _empty_table() -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", width=1, no_wrap=True)
    table.add_column("step", min_width=30)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("observed", overflow="fold")
    return table


def _row(result: Result, *, one_line: bool) -> tuple[Text, Text, str, Text]:
    mark, style = _MARKS[result.status]
    evidence = result.observed or result.seen
    if result.status is Status.SKIPPED:
        evidence = f"skipped; {evidence}"
    seconds = "" if result.status in {Status.SKIPPED, Status.KEPT} else f"{result.seconds:.2f}"
    title = Text(result.title, "" if result.status is Status.PASSED else style)
    observed = Text(evidence, "dim")
    if one_line:
        # On the texts, not on their columns: rich narrows only columns that may wrap.
        for text in (title, observed):
            text.no_wrap, text.overflow = True, "ellipsis"
    return Text(mark, style), title, seconds, observed


def closing_words(
    results: Sequence[Result], *, url: str, seconds: float, remains: Sequence[str], code: int
) -> str:
    """The verdict in words: what failed, what was seen, what to do; and what remains on the server."""
    lines = []
    for result in results:
        if result.status in {Status.FAILED, Status.COULD_NOT_RUN, Status.INTERRUPTED}:
            lines += [
                f"{result.status.words}: {result.title}",
                f"  seen: {result.seen}",
                f"  next: {result.next_action}",
                "",
            ]
    skipped = [result for result in results if result.status is Status.SKIPPED]
    for result in skipped:
        remedy = f"; {result.next_action}" if result.next_action else ""
        lines.append(f"skipped: {result.title} ({result.observed}{remedy})")
    lines += [f"remains: {entry}" for entry in remains]
    passed = sum(result.status is Status.PASSED for result in results)
    verdicts = {
        0: f"every step {'that ran ' if skipped else ''}passed at {url}",
        1: f"a step failed at {url}",
        2: f"nothing is proven about {url}: the run could not be completed",
    }
    if code == 2 and {result.status for result in results} <= {Status.PASSED, Status.KEPT, Status.SKIPPED}:
        verdicts[2] = f"every step that ran passed at {url}, but all were required"
    counts = f"{passed} of {len(results)} passed" + (f", {len(skipped)} skipped," if skipped else "")
    lines.append(f"{verdicts[code]} ({counts} in {seconds:.1f} s)")
    return "\n".join(lines)
