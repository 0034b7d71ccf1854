"""Why a request leaves the fast path."""

from __future__ import annotations


class LeaveToStockError(Exception):
    """Stock MLflow answers: the request is not fully understood, or stock would refuse it.

    Nothing has been written on behalf of the request then, or only what stock writes before it refuses.
    """
