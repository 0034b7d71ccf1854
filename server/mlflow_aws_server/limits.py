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
        self.retry_after = 1 if limit.status == 429 else None


class OutOfTimeError(RefusedError):
    """The database ended a statement at a time limit. Nothing was written."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(f"{limit.what} took more than {limit.most} {limit.unit}. {limit.remedy}")
        self.status = limit.status
        self.code = limit.code
        self.retry_after = 1 if limit.status == 503 else None


CONDITIONS = Limit(
    what="The filter",
    most=20,
    unit="conditions",
    remedy="Ask with fewer, and filter the answer.",
    because="PostgreSQL plans a join for each: 20 take 28 MB (36 MB on data sets), 60 take 160 MB.",
)
ORDER = Limit(
    what="The order",
    most=10,
    unit="clauses",
    remedy="Order by fewer.",
    because="Each is a join: with 20 conditions, PostgreSQL takes 40 MB (55 MB on data sets).",
)
FILTER = Limit(
    what="The filter or order",
    most=20_000,
    unit="characters",
    remedy="Ask in parts. Up to 500 run ids fit.",
    because="MLflow's parser takes 0.4 s for as many brackets; a list of 500 run ids takes 0.07 s.",
)
PATTERNS = Limit(
    what="The filter",
    most=5,
    unit="RLIKE patterns",
    remedy="Ask with fewer.",
    because="Each is compiled in the database and tried on each row.",
)
PATTERN = Limit(
    what="The filter with RLIKE",
    most=1_000,
    unit="characters",
    remedy="Use LIKE, or a shorter pattern.",
    because="Long patterns compile to large automata.",
)
REPETITIONS = Limit(
    what="The filter with RLIKE",
    most=2,
    unit="bounds in braces",
    remedy="Use + or *.",
    because="They multiply: two nested take 27 MB of the database's memory, three take 162 MB.",
)
BACK_REFERENCES = Limit(
    what="The filter with RLIKE",
    most=0,
    unit="back references",
    remedy="Use a pattern without.",
    because="The time for these grows exponentially with a value's length: 22 s were seen.",
)
PAGE = Limit(
    what="The page",
    most=10_000,
    unit="results",
    remedy="Ask page by page, with page_token; MLflow's client does.",
    because="A page is held in memory, as rows, objects and text. `mlflow.search_runs` asks for 10,000.",
)
POINTS = Limit(
    what="The page of a metric's history",
    most=25_000,
    unit="points",
    remedy="Ask page by page, with page_token; MLflow's client does.",
    because="MLflow's client asks for 25,000, which are 2 MB.",
)
RUN_BYTES = Limit(
    what="A run",
    most=24 * 1024 * 1024,
    unit="bytes of params, tags, metrics and data sets",
    remedy="Delete tags of it, or the run.",
    because="An answer is held in memory. A page of `runs/search` ends early, with a token, at 16 MiB.",
)
IDS = Limit(
    what="The list of ids",
    most=1_000,
    unit="ids",
    remedy="Ask in parts.",
    because="Each is looked up.",
)
EXPERIMENTS = Limit(
    what="The list of experiments",
    most=10_000,
    unit="ids",
    remedy="Ask in parts.",
    because="`mlflow.search_runs(search_all_experiments=True)` names them all.",
)
AGGREGATIONS = Limit(
    what="A list of aggregations, dimensions, stages or data sets",
    most=20,
    unit="entries",
    remedy="Ask in parts.",
    because="Each is an expression or a join of the statement.",
)
QUESTION = Limit(
    what="The body of a search",
    most=512 * 1024,
    unit="bytes",
    remedy="Ask in parts.",
    because="It is read while other requests wait; 10,000 ids have 120 to 400 KB.",
    status=413,
)
GRAPHQL_TEXT = Limit(
    what="The GraphQL document",
    most=8_000,
    unit="characters",
    remedy="Ask for less at once.",
    because="The longest of the user interface has 1,500.",
)
GRAPHQL_TOKENS = Limit(
    what="The GraphQL document",
    most=600,
    unit="tokens",
    remedy="Ask for less at once.",
    because="MLflow's parser and checks take 10 ms for them. The longest of the user interface has 150.",
)
GRAPHQL_DEPTH = Limit(
    what="The GraphQL document",
    most=20,
    unit="levels of brackets",
    remedy="Ask for less at once.",
    because="A parser calls itself for each.",
)
GRAPHQL_QUESTIONS = Limit(
    what="The GraphQL document",
    most=3,
    unit="fields with arguments",
    remedy="Send one document for each.",
    because="Each is a call of its own. Their filters, orders and ids count together.",
)
GRAPHQL_BATCH = Limit(
    what="The GraphQL request",
    most=1,
    unit="documents",
    remedy="Send one at a time.",
    because="MLflow takes one.",
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
SENT_TO_BROWSERS = Limit(
    what="An artifact that the server sends to a browser itself",
    most=10 * 2**20,
    unit="bytes",
    remedy="The browser is sent to S3, with a URL for 5 minutes.",
    because="What people look at is smaller; the rest is faster from S3, and no load for the server.",
    status=307,
)
DOWNLOADS = Limit(
    what="All downloads through one process",
    most=16,
    unit="at a time",
    remedy="Try again, or download from S3 directly, as MLflow's client does.",
    because="Each holds 1 MiB, whatever the size of the artifact and the speed of its reader; together they "
    "take 50 MiB a second.",
    status=429,
    code="RESOURCE_EXHAUSTED",
)
DOWNLOADS_OF_ONE = Limit(
    what="One caller's downloads through one process",
    most=8,
    unit="at a time",
    remedy=DOWNLOADS.remedy,
    because="The others keep the rest.",
    status=429,
    code="RESOURCE_EXHAUSTED",
)
SIGNED_SECONDS = Limit(
    what="`expiration` of a presigned URL",
    most=15 * 60,
    unit="seconds",
    remedy="Ask again when it has expired.",
    because="Whoever has the URL may read the object, and nobody can take it back.",
)
TRACE_BYTES = Limit(
    what="The trace",
    most=8 * 2**20,
    unit="bytes of spans",
    remedy="Read its spans with a search that names what you need.",
    because="MLflow builds the answer in memory, and keeps it until it is read.",
)
SMALL_BODY = 64 * 1024
"""In bytes. Bodies up to this size are always read, whatever else is held."""
LARGE_BODY = 256 * 1024
"""In bytes. What is done with a larger body is done off the event loop."""

PATH = Limit(
    what="The path",
    most=4_096,
    unit="bytes",
    remedy="No route of MLflow is longer.",
    because="It is matched against every route.",
    status=414,
)
QUERY = Limit(
    what="The query string",
    most=16 * 1024,
    unit="bytes",
    remedy="Ask for less at once.",
    because="The load balancer takes no more.",
    status=414,
)
HEADERS = Limit(
    what="The request",
    most=100,
    unit="headers",
    remedy="Send fewer headers.",
    because="Each is read before anybody knows who calls.",
    status=431,
)
HEADER_BYTES = Limit(
    what="The head of the request",
    most=64 * 1024,
    unit="bytes of headers",
    remedy="Send fewer or shorter headers.",
    because="The load balancer takes no more.",
    status=431,
)

_LESS = "Send less at once."
BODY = Limit(
    what="The body",
    most=2 * 1024 * 1024,
    unit="bytes",
    remedy=_LESS,
    because="MLflow's longest value has 100,000 characters, and JSON writes some with 12 bytes.",
    status=413,
)
BATCH = Limit(
    what="The body of a batch",
    most=26 * 1024 * 1024,
    unit="bytes",
    remedy=_LESS,
    because="`log-batch` may carry 200 values of up to 8,000 characters; a profile of data has 16 MB.",
    status=413,
)
RECORDS = Limit(
    what="The body with records",
    most=8 * 1024 * 1024,
    unit="bytes",
    remedy="Send fewer records at once.",
    because="MLflow parses JSON within JSON, and takes 24 times its size for some.",
    status=413,
)
TRACES = Limit(
    what="The body with traces",
    most=8 * 1024 * 1024,
    unit="bytes when decompressed",
    remedy="Let the exporter send smaller batches.",
    because="0.5 MB of gzip can hold 512 MB.",
    status=413,
)
MEMBERS = Limit(
    what="The compressed body",
    most=100,
    unit="gzip members",
    remedy="Compress it as a whole.",
    because="Each may be empty, and takes time all the same.",
)
NESTING = Limit(
    what="The body",
    most=100,
    unit="levels",
    remedy="Nest less deeply; MLflow's own messages have ten.",
    because="Parsers call themselves for each, and end with an error of the server.",
)
VALUES = Limit(
    what="The body",
    most=200_000,
    unit="names and values",
    remedy=_LESS,
    because="Python takes 24 times the size of `{},{},`.",
)
FIELDS = Limit(
    what="The body with traces",
    most=300_000,
    unit="fields",
    remedy="Let the exporter send smaller batches.",
    because="An attribute of two bytes takes MLflow 10 µs and 60 bytes of memory.",
)
RESOURCES = Limit(
    what="The resource, once for each of its spans,",
    most=8 * 1024 * 1024,
    unit="bytes",
    remedy="Let the exporter send smaller batches, or fewer resource attributes.",
    because="MLflow copies the resource for each span.",
)
HELD = Limit(
    what="The server",
    most=32 * 1024 * 1024,
    unit="bytes of large bodies",
    remedy="Nothing was done; send the request again.",
    because="In each process, bodies over 64 kB count until they are answered.",
    status=429,
    code="RESOURCE_EXHAUSTED",
)

# 400, because MLflow's client sends again what was answered with 503.
QUESTION_TIME = Limit(
    what="The database's answer",
    most=20,
    unit="seconds",
    remedy="Narrow the filter, or ask for fewer: the same question takes as long again.",
    because="A statement keeps a thread and a core of the database as long as it runs.",
    code="BAD_REQUEST",
)
WRITE_TIME = Limit(
    what="The database's work",
    most=QUESTION_TIME.most,
    unit=QUESTION_TIME.unit,
    remedy="Nothing was written; send the call again.",
    because="The same; nothing was written, so the client's next attempt is safe.",
    status=503,
    code="TEMPORARILY_UNAVAILABLE",
)
LOCK_TIME = Limit(
    what="The wait for other writers to the same rows",
    most=10,
    unit="seconds",
    remedy="Nothing was written; send the call again.",
    because="Whoever waits keeps others waiting; nothing was written, so the next attempt is safe.",
    status=503,
    code="TEMPORARILY_UNAVAILABLE",
)
IDLE_TIME = Limit(
    what="A pause within a transaction",
    most=60,
    unit="seconds",
    remedy="Nothing was written; send the call again.",
    because="A server that hangs must not keep its locks.",
    status=503,
    code="TEMPORARILY_UNAVAILABLE",
)


# In the order of docs/limits.md.
SECTIONS: dict[str, tuple[Limit, ...]] = {
    "Paths and headers": (PATH, QUERY, HEADERS, HEADER_BYTES),
    "Bodies": (BODY, BATCH, RECORDS, TRACES, MEMBERS, NESTING, VALUES, FIELDS, RESOURCES, HELD),
    "Shares of one principal": (REQUESTS_IN_FLIGHT, REQUESTS_PER_MINUTE, WAITING_FOR_A_THREAD),
    "Searches": (
        CONDITIONS,
        ORDER,
        FILTER,
        PATTERNS,
        PATTERN,
        REPETITIONS,
        BACK_REFERENCES,
        PAGE,
        POINTS,
        RUN_BYTES,
        IDS,
        EXPERIMENTS,
        AGGREGATIONS,
        QUESTION,
    ),
    "GraphQL": (GRAPHQL_TEXT, GRAPHQL_TOKENS, GRAPHQL_DEPTH, GRAPHQL_QUESTIONS, GRAPHQL_BATCH),
    "Artifacts": (SENT_TO_BROWSERS, DOWNLOADS, DOWNLOADS_OF_ONE, SIGNED_SECONDS, TRACE_BYTES),
    "Time in the database": (QUESTION_TIME, WRITE_TIME, LOCK_TIME, IDLE_TIME),
}


def as_markdown() -> str:
    """The table, one section for each kind of limit."""
    lines = [
        "# Limits of a request",
        "",
        "Made by `python -m mlflow_aws_server.limits`; a test holds it to the code.",
        "A request beyond a limit is refused before it costs anything, with an error that names the limit;",
        "a statement, when the database has ended it.",
    ]
    for section, limits in SECTIONS.items():
        lines += ["", f"## {section}", "", "| What | At most | Beyond | Because |", "|---|---|---|---|"]
        lines += [f"| {x.what} | {x.most:,} {x.unit} | {x.status} | {x.because} |" for x in limits]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
