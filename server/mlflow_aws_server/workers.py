"""uvicorn, with workers that share MLflow's memory: `python -m mlflow_aws_server.workers UVICORN-ARGUMENTS`.

uvicorn starts each worker as a fresh interpreter, which imports MLflow for itself: every worker pays the
memory and the seconds again. Here Python's fork server imports it once, and forks the workers, also the one
that replaces a worker that died. With one worker nothing is forked and nothing differs.
"""

from __future__ import annotations

import multiprocessing

_PRELOADED = "mlflow_aws_server.preload"


def main() -> None:
    """Become uvicorn's command line."""
    import uvicorn._subprocess
    import uvicorn.main

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOADED])
    # uvicorn has no setting for how its workers start.
    uvicorn._subprocess.spawn = context  # type: ignore[assignment]
    uvicorn.main.main(prog_name="uvicorn")


if __name__ == "__main__":
    main()
