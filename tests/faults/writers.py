"""Programs that log through MLflow's public client, and remember what they were told is stored.

`python -m tests.faults.writers URL EXPERIMENT` is one: it answers each line that it reads
as soon as its writer has stored something more; at the end of its input it prints what it remembers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

POINTS = 5
"""Of one log-batch."""
_FILE_BYTES = 200_000
_PAUSE_SECONDS = 0.03
# A tag of the experiment and a file belong to every tenth batch; the first is stock MLflow's to store.
_OTHERS_EVERY = 10
_LONGEST_WAIT_SECONDS = 240


@dataclass(frozen=True)
class Acknowledged:
    """One batch, tag or file that a client was told is stored; times are of the monotonic clock."""

    kind: str
    run: str
    step: int
    began: float
    ended: float
    digest: str = ""


@dataclass
class TrainingWriters:
    """Threads that log in a loop, each to a run of its own, from `start` to `stop`."""

    url: str
    experiment: str
    files: bool = False
    """Whether every second one logs files too."""
    count: int = 4
    acknowledged: list[Acknowledged] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """What calls raised in spite of the client's own repetitions."""
    runs: list[str] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start, and return once each has stored something."""
        self._threads = [
            threading.Thread(target=self._write, args=(self.files and number % 2 == 0,), daemon=True)
            for number in range(self.count)
        ]
        for thread in self._threads:
            thread.start()
        self.go_on()

    def go_on(self) -> None:
        """Return once each has stored something that it began after now."""
        now = time.monotonic()
        deadline = now + _LONGEST_WAIT_SECONDS
        while len({each.run for each in list(self.acknowledged) if each.began > now}) < self.count:
            assert time.monotonic() < deadline, f"writers do not go on: {self.failed[-3:]}"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop after the calls under way."""
        self._end.set()
        for thread in self._threads:
            thread.join(_LONGEST_WAIT_SECONDS)
            assert not thread.is_alive(), "a call of a client never ends"

    def _write(self, files: bool) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        client = MlflowClient(self.url)
        run = client.create_run(self.experiment).info.run_id
        self.runs.append(run)
        for step in itertools.count():
            if self._end.is_set():
                return
            points = [Metric(f"m{i}", step, step, step) for i in range(POINTS)]
            self._call("points", run, step, lambda points=points: client.log_batch(run, metrics=points))
            if step % _OTHERS_EVERY == 0:
                tag = f"{run}-{step}"
                self._call(
                    "tags", run, step, lambda tag=tag: client.set_experiment_tag(self.experiment, tag, "x")
                )
                if files:
                    self._log_file(client, run, step)
            self._end.wait(_PAUSE_SECONDS)

    def _log_file(self, client: Any, run: str, step: int) -> None:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / f"{step}.bin"
            content = secrets.token_bytes(_FILE_BYTES)
            file.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            self._call("files", run, step, lambda: client.log_artifact(run, str(file)), digest=digest)

    def _call(self, kind: str, run: str, step: int, call: Any, *, digest: str = "") -> None:
        began = time.monotonic()
        try:
            call()
        except Exception as error:
            self.failed.append(f"{kind}: {type(error).__name__}: {error}")
            self._end.wait(0.2)
        else:
            self.acknowledged.append(Acknowledged(kind, run, step, began, time.monotonic(), digest))


def main(url: str, experiment: str) -> None:
    """Log until the end of the standard input."""
    writers = TrainingWriters(url, experiment, count=1)
    writers.start()
    for line in sys.stdin:
        writers.go_on()
        print(line, end="", flush=True)
    writers.stop()
    print(
        json.dumps(
            {
                "runs": writers.runs,
                "acknowledged": [asdict(each) for each in writers.acknowledged],
                "failed": writers.failed,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
