"""Whether the fast path of this process serves, for whoever says so: whoami, `/ready`, the log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

_log = logging.getLogger("mlflow_aws_server.fastpath")

TURNED_OFF = "turned off by MLFLOW_AWS_FAST_PATH"
"""The one reason that a deployment has chosen."""


@dataclass(slots=True)
class FastPathState:
    """One process's; each worker has its own."""

    serving: bool = False
    reason: str | None = "it has not started"
    left: Counter[str] = field(default_factory=Counter)
    """Calls of the fast path that were left to stock MLflow while it served, by reason."""

    def serve(self, routes: int) -> None:
        """It serves from now on."""
        if not self.serving:
            self.serving, self.reason = True, None
            _log.info("fast path: serving %d routes", routes)

    def step_aside(self, reason: str) -> None:
        """Stock MLflow serves every request from now on."""
        changed = self.serving or reason != self.reason
        self.serving, self.reason = False, reason
        if changed:
            level = logging.INFO if reason == TURNED_OFF else logging.WARNING
            _log.log(level, "fast path: stepping aside, stock MLflow serves every request: %s", reason)

    def said(self) -> Mapping[str, object]:
        """For an answer in JSON."""
        return {"serving": self.serving, "reason": self.reason}
