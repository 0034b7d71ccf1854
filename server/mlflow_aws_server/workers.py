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

_PRELOADED = "mlflow_aws_server.preload"


class _Forking:
    """Stands in for the multiprocessing context with which uvicorn makes its workers."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("fork")
        self._prepared = False

    def Process(self, **how: Any) -> multiprocessing.process.BaseProcess:  # noqa: N802 - multiprocessing's name
        """Make a worker, which starts as a copy of this process with MLflow in it."""
        if not self._prepared:
            # Only now: a supervisor without workers does not need MLflow.
            importlib.import_module(_PRELOADED)
            os.register_at_fork(after_in_child=_forget_handlers)
            self._prepared = True
        return self._context.Process(**how)


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
