"""uvicorn, with workers that share MLflow's memory: `python -m mlflow_aws_server.workers UVICORN-ARGUMENTS`.

uvicorn starts each worker as a fresh interpreter, which imports MLflow for itself: every worker pays the
memory and the seconds again. Here uvicorn's supervisor imports it once and forks the workers, also the one
that replaces a worker that died. With one worker nothing is forked and nothing differs.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from typing import Any

from mlflow_aws_server import logs
from mlflow_aws_server.metrics import task

_PRELOADED = "mlflow_aws_server.preload"


class _Forking:
    """Stands in for the multiprocessing context with which uvicorn makes its workers."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("fork")
        self._prepared = False
        # Each at its slot; one that replaces another takes its place.
        self._workers: list[multiprocessing.process.BaseProcess] = []

    def Process(self, **how: Any) -> multiprocessing.process.BaseProcess:  # noqa: N802 - multiprocessing's name
        """Make a worker, which starts as a copy of this process with MLflow in it."""
        if not self._prepared:
            # Only now: a supervisor without workers does not need MLflow.
            importlib.import_module(_PRELOADED)
            os.register_at_fork(after_in_child=_forget_handlers)
            task.share()
            self._prepared = True
        ended = (slot for slot, worker in enumerate(self._workers) if worker.exitcode is not None)
        slot = next(ended, len(self._workers))
        worker = self._context.Process(name=str(slot), **how)
        self._workers[slot : slot + 1] = [worker]
        return worker


def main() -> None:
    """Become uvicorn's command line."""
    logs.configure()
    import uvicorn._subprocess
    import uvicorn.main

    # uvicorn has no setting for how its workers start.
    uvicorn._subprocess.spawn = _Forking()  # type: ignore[assignment]
    uvicorn.main.main(prog_name="uvicorn")


def _forget_handlers() -> None:
    # With the supervisor's handlers, a worker told to end before it has its own would live on.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
