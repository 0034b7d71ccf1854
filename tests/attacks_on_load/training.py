"""A contributor's training loop with MLflow's own client: `python -m tests.attacks_on_load.training`.

Each line of standard input is a phase's name, which begins then; at its end the loop prints what it did.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from mlflow import MlflowClient
from mlflow.entities import Metric


def main(experiment: str) -> None:
    """Log until standard input ends."""
    client = MlflowClient()
    run = client.create_run(experiment).info.run_id
    phase = ["warm"]
    calls: list[tuple[str, float, float]] = []
    failures: list[str] = []
    acknowledged = {"single": 0, "batch_7": 0}

    def follow() -> None:
        for line in sys.stdin:
            phase[0] = line.strip()
        phase[0] = "end"

    threading.Thread(target=follow, daemon=True).start()
    print("ready", flush=True)
    step = 0
    while phase[0] != "end":
        step += 1
        began = time.perf_counter()
        name = phase[0]
        try:
            if step % 4:
                client.log_metric(run, "single", float(step), step=step)
                acknowledged["single"] += 1
            else:
                batch = [Metric(f"batch_{key}", float(step), step, step) for key in range(20)]
                client.log_batch(run, metrics=batch)
                acknowledged["batch_7"] += 1
        except Exception as error:
            failures.append(f"{name}: {error!r}"[:300])
        calls.append((name, began, time.perf_counter() - began))
        # A training step.
        time.sleep(0.002)
    done = {"run": run, "acknowledged": acknowledged, "failures": failures, "calls": calls}
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
