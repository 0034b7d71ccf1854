"""What the server counts and measures of itself: for CloudWatch each minute, and for administrators now.

Recording costs microseconds, and a series is never named by what a client chose: routes are those of the
route table.
"""

from __future__ import annotations

from mlflow_aws_server.metrics.middleware import Measured, Probe, State
from mlflow_aws_server.metrics.recorder import METRICS

__all__ = ["METRICS", "Measured", "Probe", "State"]
