"""How much one request may ask for: every limit of this server, in one table.

`python -m mlflow_aws_server.limits > docs/limits.md` writes it for people; a test holds the document to it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from mlflow_aws_server.errors import RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The most that a request may have of something, and how one with more is refused."""

    what: str
    """What is counted, as the refusal names it: "The filter"."""
    most: int
    unit: str
    """In the plural."""
    remedy: str
    """What to do instead; a sentence."""
    because: str
    """What a larger one costs; a sentence."""
    status: int = 400
    code: str = "INVALID_PARAMETER_VALUE"

    def check(self, seen: int) -> None:
        """Refuse more than the limit.

        Raises:
            LimitError: `seen` is more.
        """
        if seen > self.most:
            raise LimitError(self, seen)


class LimitError(RefusedError):
    """A request is beyond a limit. Nothing was read or written."""

    def __init__(self, limit: Limit, seen: int) -> None:
        super().__init__(
            f"{limit.what} has {seen} {limit.unit}; at most {limit.most} are accepted. {limit.remedy}"
        )
        self.status = limit.status
        self.code = limit.code


CONDITIONS = Limit(
    what="The filter",
    most=30,
    unit="conditions",
    remedy="Ask with fewer, and filter the answer.",
    because="PostgreSQL plans a join for each: 60 take 114 MB, 170 take 1.1 GB.",
)

REQUESTS_IN_FLIGHT = Limit(
    what="What a principal has of a task",
    most=1000,
    unit="requests in flight (`server.requests_in_flight`)",
    remedy="Further ones wait, and are refused after 15 seconds.",
    because="Each holds memory until it is answered.",
    status=429,
)
REQUESTS_PER_MINUTE = Limit(
    what="What a principal has of a task",
    most=600_000,
    unit="requests per minute (`server.requests_per_minute`)",
    remedy="Further ones are held back, and refused where that would take more than 30 seconds.",
    because="Each takes time of the processor that all share; one that the gate refuses counts as 100.",
    status=429,
)
WAITING_FOR_A_THREAD = Limit(
    what="What a principal has of a process",
    most=1024,
    unit="calls that wait for one of MLflow's threads",
    remedy="Each waits for 15 seconds at most.",
    because="There are few threads, and nobody has more than half of them at a time.",
    status=429,
)

# In the order of docs/limits.md.
SECTIONS: dict[str, tuple[Limit, ...]] = {
    "Searches": (CONDITIONS,),
    "Shares of one principal": (REQUESTS_IN_FLIGHT, REQUESTS_PER_MINUTE, WAITING_FOR_A_THREAD),
}


def as_markdown() -> str:
    """The table, one section for each kind of limit."""
    lines = [
        "# Limits of a request",
        "",
        "Made by `python -m mlflow_aws_server.limits`; a test holds it to the code.",
        "A request beyond a limit is refused before it costs anything, with an error that names the limit.",
    ]
    for section, limits in SECTIONS.items():
        lines += ["", f"## {section}", "", "| What | At most | Beyond | Because |", "|---|---|---|---|"]
        lines += [f"| {x.what} | {x.most:,} {x.unit} | {x.status} | {x.because} |" for x in limits]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
