"""A live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

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
    Status.BROKEN: ("✗", "bold red"),
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
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                self._table(),
                console=self._console,
                refresh_per_second=8,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="visible",
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = None
        if self._live is not None:
            self._live.update(self._table())
            self._live.stop()
        elif self._results:
            self._console.print()
            self._console.print(self._table())

    def begin(self, step: Step) -> None:
        """A step starts."""
        self._running = step
        if self._live is not None:
            self._live.update(self._table())
        else:
            self._print(f"[{len(self._results) + 1:2}/{self._total}] {step.promise} …")

    def end(self, result: Result) -> None:
        """A step ended or was left out."""
        self._running = None
        self._results.append(result)
        if self._live is not None:
            self._live.update(self._table())
            return
        evidence = f": {result.observed or result.seen}" if result.observed or result.seen else ""
        if result.status in {Status.SKIPPED, Status.KEPT}:
            self._print(f"[{len(self._results):2}/{self._total}] {result.promise} …")
        self._print(f"        {result.status} in {result.seconds:.2f} s{evidence}")

    def _print(self, text: str) -> None:
        # Written past rich's wrapping, at once: a log reader wants whole lines, now.
        self._console.file.write(text + "\n")
        self._console.file.flush()

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("", width=1)
        table.add_column("promise", ratio=None, min_width=30)
        table.add_column("seconds", justify="right", no_wrap=True)
        table.add_column("observed", overflow="fold")
        for result in self._results:
            mark, style = _MARKS[result.status]
            seconds = "" if result.status in {Status.SKIPPED, Status.KEPT} else f"{result.seconds:.2f}"
            evidence = result.observed or result.seen
            if result.status is Status.SKIPPED:
                evidence = f"skipped; {evidence}"
            table.add_row(
                Text(mark, style),
                Text(result.promise, style if style != "green" else ""),
                seconds,
                Text(evidence, "dim"),
            )
        if self._running is not None:
            table.add_row(Spinner("dots"), Text(self._running.promise), "", "")
        return table


def closing_words(
    results: Sequence[Result], *, url: str, seconds: float, remains: Sequence[str], code: int
) -> str:
    """The verdict in words: what broke, what was seen, what to do; and what remains on the server."""
    lines = []
    for result in results:
        if result.status in {Status.BROKEN, Status.COULD_NOT_RUN, Status.INTERRUPTED}:
            label = "promise broken" if result.status is Status.BROKEN else str(result.status)
            lines += [
                f"{label}: {result.promise}",
                f"  seen: {result.seen}",
                f"  next: {result.next_action}",
                "",
            ]
    lines += [f"remains: {entry}" for entry in remains]
    kept = sum(result.status is Status.PASSED for result in results)
    verdicts = {
        0: f"{url} keeps its promises",
        1: f"{url} breaks a promise",
        2: f"nothing is proven about {url}: the run could not be completed",
    }
    lines.append(f"{verdicts[code]} ({kept} of {len(results)} in {seconds:.1f} s)")
    return "\n".join(lines)
