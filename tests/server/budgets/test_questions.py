"""Attacks on the database and on MLflow's parser, on every route and in every spelling that MLflow reads."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2
from mlflow.server import handlers
from mlflow.store.tracking import GET_METRIC_HISTORY_MAX_RESULTS
from mlflow.utils import search_utils
from mlflow.utils.search_logged_model_utils import parse_filter_string
from mlflow_aws_server.budgets import questions
from mlflow_aws_server.identity.access import ROUTES
from mlflow_aws_server.limits import LimitError

from tests.server.budgets.harness import Guarded

MANY = " and ".join(f"tags.q{i}='b'" for i in range(170))
FEW = " and ".join(f"tags.`mlflow.q{i}` = 'b'" for i in range(20))
RUNS = "/api/2.0/mlflow/runs/search"
EXPERIMENTS = "/ajax-api/2.0/mlflow/experiments/search"


def filters_of(path: str) -> dict[str, Any]:
    return {"filters": [MANY[:900], MANY[900:]]} if path.endswith("traces/metrics") else {"filter": MANY}


def refuses(method: str, path: str, *, query: str = "", body: bytes = b"") -> LimitError:
    with pytest.raises(LimitError) as refused:
        questions.check(method, path, query.encode(), body)
    assert refused.value.status in (400, 413)
    assert "at most" in refused.value.message
    return refused.value


def posted(fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize("path", sorted(questions.PATHS))
def test_170_conditions_are_refused_on_every_route(path: str) -> None:
    assert "conditions" in refuses("POST", path, body=posted(filters_of(path))).message
    assert "conditions" in refuses("GET", path, query=urlencode(filters_of(path), doseq=True)).message


SPELLINGS: dict[str, bytes] = {
    "plain": posted({"filter": MANY}),
    "escaped": b'{"\\u0066ilter": ' + posted(MANY) + b"}",
    "in a string": posted(json.dumps({"filter": MANY})),
    "UTF-16": json.dumps({"filter": MANY}).encode("utf-16"),
    "UTF-32": json.dumps({"filter": MANY}).encode("utf-32"),
    "with a mark": b"\xef\xbb\xbf" + posted({"filter": MANY}),
    "NaN beside it": b'{"x": NaN, "filter": ' + posted(MANY) + b"}",
    "a lone surrogate beside it": b'{"x": "\\ud800", "filter": ' + posted(MANY) + b"}",
    "twice": b'{"filter": "", "filter": ' + posted(MANY) + b"}",
    "parted among fields": posted({"filter": MANY[:150], "filter_string": MANY[150:400]}),
    "camel case": posted({"filterString": MANY}),
    "camel case with a number": posted({"filterString2": MANY}),
    "lower case operators": posted({"filter": " and ".join(["tags.a like 'x'"] * 21)}),
    "no spaces": posted({"filter": "and".join(["tags.a='x'"] * 21)}),
    "without and": posted({"filter": " ".join(["tags.a='x'"] * 21)}),
    "IS NULL": posted({"filter": " and ".join(["tags.a IS NULL"] * 21)}),
    "lists": posted({"filter": " and ".join(["run_id in ('a')"] * 21)}),
    "comments between": posted({"filter": "/**/and/*'*/".join(["tags.a='x'"] * 21)}),
    "line comments": posted({"filter": "--'\nand ".join(["tags.a='x'"] * 21)}),
    "quotes in quotes": posted({"filter": " and ".join(["tags.\"a'\" = 'x\"'"] * 21)}),
    "letters that are others in upper case": posted({"filter": " and ".join(["tags.a ı\u017f NULL"] * 21)}),
    "statements": posted({"filter": ";" * 2000}),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
def test_a_filter_is_understood_however_it_is_spelt(method: str, spelling: str) -> None:
    refuses(method, EXPERIMENTS, body=SPELLINGS[spelling])


@pytest.mark.parametrize(
    "query",
    [
        urlencode({"filter": MANY}),
        urlencode({"filter": MANY}).replace("=", "%3D").replace("filter%3D", "%66ilter="),
        urlencode([("filter", MANY[:1000]), ("filter", MANY[1000:])]),
        urlencode({"filterString": MANY}),
        urlencode([("order_by", f"metrics.a{i} DESC") for i in range(11)]),
        urlencode({"max_results": "50_000"}),
        urlencode([("run_ids", "a")] * 1001),
        "&" * 1001,
    ],
)
def test_a_query_is_understood_too(query: str) -> None:
    refuses("GET", EXPERIMENTS, query=query)


BEYOND: dict[str, dict[str, Any]] = {
    "orders": {"order_by": [f"metrics.a{i} DESC" for i in range(1300)]},
    "orders in camel case": {"orderBy": [f"metrics.a{i} DESC" for i in range(11)]},
    "orders in both": {"orderBy": ["a"] * 6, "order_by": ["a"] * 6},
    "a long order": {"order_by": ["metrics." + "a" * 20_000]},
    "orders of logged models": {"order_by": [{"field_name": "metrics.a"}] * 11},
    "a filter of 20 KB": {"filter": "(" * 20_001},
    "a page": {"max_results": 50_000},
    "a page as text": {"maxResults": "50000"},
    "a page as a number with a point": {"max_results": 5e4},
    "traces to delete": {"max_traces": 10_001},
    "ids": {"trace_ids": ["tr-1"] * 1001},
    "ids to delete": {"requestIds": ["tr-1"] * 1001},
    "places": {"locations": [{}] * 1001},
    "experiments": {"experiment_ids": ["1"] * 10_001},
    "data sets": {"datasets": [{"dataset_name": "a"}] * 21},
    "aggregations": {"aggregations": [{"aggregation_type": "AVG"}] * 21},
    "a body": {"anything": "x" * 600_000},
    "back references": {"filter": r"tags.z RLIKE '^(a+)(a+)b\1\2c$'"},
    "back references in lower case": {"filter": r"tags.z rlike '(a)\9'"},
    "nested bounds": {"filter": "tags.z RLIKE '((a{1,255}){1,255}){1,255}'"},
    "patterns": {"filter": " and ".join(["tags.z RLIKE 'a'"] * 6)},
    "a long pattern": {"filter": f"tags.z RLIKE '{'a?' * 600}'"},
}


@pytest.mark.parametrize("what", BEYOND)
def test_what_costs_too_much_is_refused(what: str) -> None:
    for path in (RUNS, EXPERIMENTS, "/api/3.0/mlflow/traces/search"):
        refuses("POST", path, body=posted(BEYOND[what]))


HONEST: list[dict[str, Any]] = [
    {"filter": FEW, "order_by": ["attributes.start_time DESC"], "max_results": 10_000},
    {"filter": "run_id IN (" + ",".join(f"'{i:032x}'" for i in range(500)) + ")", "max_results": 500},
    {"filter": "params.command = 'train " + "--a=1 " * 40 + "'"},
    {"filter": "params.text = 'it''s = and is in " + "= is in like " * 40 + "' and tags.a = 'b'"},
    {"experiment_ids": [str(i) for i in range(5000)]},
    {"run_ids": ["a" * 32] * 100, "metric_key": "loss", "max_results": "320"},
    {"filter": "trace.text RLIKE '^[a-z]{3,5}$' AND trace.status = 'OK'"},
    {"filter": None, "order_by": None, "max_results": None},
    {"filter": 5, "order_by": "start_time", "max_results": "many"},
    {},
]


@pytest.mark.parametrize("fields", HONEST)
def test_what_clients_and_the_user_interface_send_passes(fields: dict[str, Any]) -> None:
    questions.check("POST", RUNS, b"", posted(fields))
    questions.check("GET", EXPERIMENTS, b"filter=name+%3D+%27a%27&max_results=1000", b"")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b'"{"', b"[" * 2000, b"\xff", b"null"])
def test_a_body_that_cannot_be_read_is_left_to_mlflow(body: bytes) -> None:
    for path in (RUNS, "/graphql"):
        questions.check("POST", path, b"", body)


def test_what_a_data_set_brings_is_no_question() -> None:
    path = "/api/3.0/mlflow/datasets/d-1/records"
    questions.check("POST", path, b"", posted({"dataset_record_ids": ["a"] * 2000}))
    refuses("DELETE", path, body=posted({"datasetRecordIds": ["a"] * 2000}))
    refuses("GET", path, query="max_results=20000")


# --- never fewer than MLflow evaluates

_PIECES = (
    *("tags.a", "=", "'b'", " and ", " AND ", " ", "\n", "'", '"', "`", "\\", "\\'", "''", "--", "/*", "*/"),
    *("$$", "$a$", "#", "(", ")", ",", ";", "like", "LIKE ", " in ", "NOT IN", "is null", "IS NOT NULL", "1"),
    *("metrics.x", ">=", "<", "!=", "'x", "tags.`a b`", 'tags."c"', "é", "ı", "\u017f", "\u212a", "[", "]"),
)
_TAGS = ("tags.a = 'b'", "tags.`a` LIKE 'c'", "tags.a IS NULL", "name IN ('a','b')", "params.\"x\" != 'y'")
_PARSERS: tuple[Callable[[str], Any], ...] = (
    search_utils.SearchUtils.parse_search_filter,
    search_utils.SearchExperimentsUtils.parse_search_filter,
    search_utils.SearchModelUtils.parse_search_filter,
    search_utils.SearchModelVersionUtils.parse_search_filter,
    search_utils.SearchTraceUtils.parse_search_filter_for_search_traces,
    search_utils.SearchEvaluationDatasetsUtils.parse_search_filter,
    parse_filter_string,
)


def _texts(drawn: random.Random) -> Iterator[str]:
    for _ in range(60):
        yield "".join(drawn.choices(_PIECES, k=drawn.randrange(1, 25)))
    for _ in range(80):
        noise = drawn.choice(("/*'*/", "--'\n", " ", "\t", "\u00a0", "/* = */", "", ";"))
        yield f"{noise}and{noise}".join(drawn.choices(_TAGS, k=drawn.randrange(1, 12)))


@pytest.mark.slow
def test_no_fewer_conditions_are_counted_than_mlflow_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated = 0
    for text in _texts(random.Random(20260)):
        counted = min(questions._conditions(text), len(questions._OPERATOR.findall(text)))
        for parse in _PARSERS:
            try:
                found = len(parse(text))
            except (MlflowException, ValueError, IndexError, KeyError, AttributeError, SyntaxError):
                continue
            evaluated += found
            assert min(found, 21) <= counted, text
    assert evaluated > 100


# --- no route and no field is forgotten

_SERVICES = (handlers.MlflowService, handlers.ModelRegistryService, handlers.WebhookService)
# Fields of lists that are no question: what a request brings to be stored.
_BROUGHT = frozenset(
    [
        "tags",
        "params",
        "metrics",
        "models",
        "datasets",
        "parts",
        "request_metadata",
        "prompt_versions",
        "root_causes",
        "categories",
        "users",
        "schema_ids",
        "events",
    ]
)
_CREATED = ("/create", "/update", "/issues")


def _requests() -> Iterator[tuple[str, str, Any]]:
    for service in _SERVICES:
        for method in service.DESCRIPTOR.methods_by_name.values():
            for endpoint in method.GetOptions().Extensions[databricks_pb2.rpc].endpoints:
                yield endpoint.method, endpoint.path, method.input_type


def _permitted(method: str, path: str) -> list[str]:
    """The paths on which this server offers it."""
    pattern = re.compile(
        r"/(?:ajax-)?api/[23]\.0/?" + re.sub(r"\\\{\w+\\\}|\{\w+\}", "[^/]+", path.lstrip("/"))
    )
    return [
        route.path
        for route in ROUTES
        if route.permission is not None
        and route.method == method
        and pattern.fullmatch(route.path.replace("<id>", "x"))
    ]


def test_every_field_with_conditions_pages_or_ids_is_judged() -> None:
    known = {*questions.FILTERS, *questions.COUNTED, *questions.PAGES}
    forgotten = []
    for method, path, message in _requests():
        for field in message.fields:
            is_question = (
                field.is_repeated or "filter" in field.name or field.name in ("max_results", "max_traces")
            )
            created = field.name in _BROUGHT or (path.endswith(_CREATED) and field.is_repeated)
            if not is_question or (created and field.name not in questions.FILTERS):
                continue
            for permitted in _permitted(method, path):
                concrete = permitted.replace("<id>", "d-1")
                judged = concrete in questions.PATHS or questions.VARIABLE.fullmatch(concrete)
                if not judged or field.name not in known:
                    forgotten.append((method, permitted, field.name))
            assert field.name not in known or questions._FIELDS[field.json_name] == field.name
    assert forgotten == []


def test_every_route_that_searches_or_lists_is_judged() -> None:
    asked = re.compile(r"search|/list$|batchGet|get-history|/metrics$|/(?:webhooks|traces|unified-traces)$")
    unjudged = {
        route.path
        for route in ROUTES
        if route.permission is not None and asked.search(route.path) and route.path not in questions.PATHS
    }
    # Files, the server's own metrics: no SQL. The receiver of spans and the start of a trace bring something.
    without = ("mlflow/artifacts/list", "mlflow-aws/metrics")
    allowed = {"/v1/traces", *(f"/{a}api/2.0/{path}" for a in ("", "ajax-") for path in without)}
    assert unjudged - allowed <= {f"/{a}api/3.0/mlflow/traces" for a in ("", "ajax-")}
    offered = {route.path for route in ROUTES if route.permission is not None}
    assert offered | {path for path in questions.PATHS if path.startswith("/api/2.0/")} >= questions.PATHS


# --- GraphQL

_SEARCH = """
query SearchRuns($data: MlflowSearchRunsInput!) {
  mlflowSearchRuns(input: $data) { runs { info { runUuid } } }
}
"""


def documents() -> dict[str, Any]:
    quoted = json.dumps(MANY)
    return {
        "variables": {"query": _SEARCH, "variables": {"data": {"filter": MANY}}},
        "a literal": {"query": f"{{ mlflowSearchRuns(input: {{filter: {quoted}}}) {{ nextPageToken }} }}"},
        "a block": {"query": f'{{ a(input: {{filter: """{MANY}"""}}) {{ b }} }}'},
        "a variable inside": {
            "query": "query($f: String) { a(input: {filter: $f}) { b } }",
            "variables": {"f": MANY},
        },
        "a default": {"query": f"query($f: String = {quoted}) {{ a(input: {{filter: $f}}) {{ b }} }}"},
        "a default of the whole": {
            "query": f"query($f: X = {{filter: {quoted}}}) {{ a(input: $f) {{ b }} }}"
        },
        "a fragment": {
            "query": f"{{ ...F }} fragment F on Query {{ a(input: {{filter: {quoted}}}) {{ b }} }}"
        },
        "nested": {"query": f"{{ x {{ ... {{ a(input: {{filter: {quoted}}}) }} }} }}"},
        "a page": {"query": _SEARCH, "variables": {"data": {"maxResults": 50000}}},
        "orders": {"query": _SEARCH, "variables": {"data": {"orderBy": ["a"] * 11}}},
        "orders, each a variable": {
            "query": "query($a: String) { s(input: {orderBy: [" + "$a " * 11 + "]}) { b } }",
            "variables": {"a": "metrics.a"},
        },
        "runs": {"query": _SEARCH, "variables": {"data": {"runIds": ["a"] * 1001}}},
        "aliases": {
            "query": "{" + " ".join(f"a{i}: mlflowGetRun(input: {{}}) {{ b }}" for i in range(4)) + "}"
        },
        "two searches that are too much together": {
            "query": "query($d: I) { a: s(input: $d) { b } c: s(input: $d) { b } }",
            "variables": {"d": {"filter": " and ".join(["tags.a = 'b'"] * 11)}},
        },
        "depth": {"query": "{a" * 21 + "}" * 21},
        "depth of a value": {"query": "{ a(x: " + "[" * 100 + "]" * 100 + ") }"},
        "depth after a comment": {"query": '{ # "\n' + "{a" * 21 + "}" * 22},
        "fields": {"query": "{" + "a " * 700 + "}"},
        "fragments": {
            "query": " ".join(f"fragment F{i} on Run {{ ...F{i + 1} ...F{i + 1} }}" for i in range(100))
        },
        "text": {"query": "{ a }" + " " * 8000},
        "a batch": [{"query": "{ a }"}] * 2,
        "much beside it": {"query": "{ a }", "variables": {"x": "y" * 600_000}},
    }


@pytest.mark.parametrize("what", documents())
def test_a_document_that_costs_too_much_is_refused(what: str) -> None:
    for method in ("POST", "GET"):
        refuses(method, "/graphql", body=posted(documents()[what]))


def test_documents_of_the_user_interface_pass() -> None:
    # As long and as deep as its longest.
    leaf = "key value step timestamp "
    document = (
        'query GetRun($data: MlflowGetRunInput!) @component(name: "MLflow.ExperimentRunTracking") {'
        "mlflowGetRun(input: $data) { apiError { code message } run { info { " + leaf * 4 + "}"
        "experiment { tags { key value } } modelVersions { name } data { metrics { " + leaf + "} } "
        "inputs { datasetInputs { dataset { digest } tags { key value } } } } } }"
    )
    questions.check(
        "POST", "/graphql", b"", posted({"query": document, "variables": {"data": {"runId": "a" * 32}}})
    )
    for broken in ("", "{", "query", 'x"', None, 5):
        questions.check("POST", "/graphql", b"", posted({"query": broken, "variables": "none"}))


@pytest.mark.parametrize("prefix", ["/api", "/ajax-api"])
def test_a_history_may_be_asked_in_the_pages_of_mlflow_s_client_and_no_larger(prefix: str) -> None:
    path = f"{prefix}/2.0/mlflow/metrics/get-history"
    questions.check("GET", path, b"max_results=%d" % GET_METRIC_HISTORY_MAX_RESULTS, b"")
    with pytest.raises(LimitError):
        questions.check("GET", path, b"max_results=%d" % (GET_METRIC_HISTORY_MAX_RESULTS + 1), b"")


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (r"tags.a RLIKE '(a)\1'", 400),
        (" and ".join(["tags.a = 'b'"] * 1000), 400),
        ("run_id IN ('0'" + ", '0'" * 400 + ")", 200),
    ],
)
async def test_a_flood_of_refused_or_long_questions_leaves_time_for_work(condition: str, status: int) -> None:
    guarded = Guarded()
    body = json.dumps({"experiment_ids": ["1"], "filter": condition}).encode()
    asking = [
        asyncio.create_task(guarded.send("POST", "/api/2.0/mlflow/runs/search", body)) for _ in range(30)
    ]
    rounds = 0
    while not all(task.done() for task in asking):
        rounds += 1
        await asyncio.sleep(0)
    assert {task.result().status for task in asking} == {status}
    assert rounds > 30
