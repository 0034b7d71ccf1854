"""A program that logs until it is killed: prints its run, then each step that was acknowledged."""

from __future__ import annotations

import itertools
import sys

from mlflow import MlflowClient
from mlflow.entities import Metric

from tests.faults.writers import POINTS


def main(url: str, experiment: str) -> None:
    """Log batch after batch."""
    client = MlflowClient(url)
    run = client.create_run(experiment).info.run_id
    print(run, flush=True)
    for step in itertools.count():
        client.log_batch(run, metrics=[Metric(f"m{i}", step, step, step) for i in range(POINTS)])
        print(step, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
