"""Requests that nobody wrote, on every route, by every role: `python -m tests.fuzz`."""
