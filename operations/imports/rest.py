"""Reading any MLflow-compatible server through MLflow's REST API, experiment by experiment.

What is read over and over (runs and points of metrics) is asked for as JSON, many questions at a time, and
becomes COPY text without an object for each point; everything else goes through MLflow's client, which knows
the differences between servers. Both log in as MLflow's clients do (MLFLOW_TRACKING_TOKEN, profiles, …).

The rows are written at one revision of MLflow's schema, whatever is installed here: the task that loads them
migrates them like those of any other source, so that what later revisions compute is computed by them.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from operations.command import Say
from operations.errors import CannotRunError, FailedError
from operations.imports.archive import Archive, Part, text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from requests import Response

T = TypeVar("T")

# The last before MLflow derives columns of traces, spans and assessments, which its migration fills.
REVISION = "b7e2c1a4d9f3"
# What a server of two workers answers at once, and one more to be on the way.
WORKERS = 8
_RUNS = 1000
# What MLflow's servers give at most, of so many runs.
_POINTS = 25_000
_BULK_RUNS = 100
_TRACES = 100
_TRIES = 5
# Of the task's tables, which maps what MLflow's own cannot hold.
_LARGEST_ID = 2**63 - 1
# As MLflow's database stores keep what JSON and SQL have no number for.
_LARGEST = 1.7976931348623157e308

_RUN = (
    "run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status", "start_time",
    "end_time", "deleted_time", "source_version", "lifecycle_stage", "artifact_uri", "experiment_id",
)  # fmt: skip
_POINT = ("key", "value", "timestamp", "step", "is_nan", "run_uuid")
# The first is written last: its row says that all of the experiment, or of the registry, is there.
_EXPERIMENT = {
    "experiments": (
        "experiment_id", "name", "workspace", "artifact_location", "lifecycle_stage", "creation_time",
        "last_update_time",
    ),
    "experiment_tags": ("key", "value", "experiment_id"),
    "runs": _RUN,
    "params": ("key", "value", "run_uuid"),
    "tags": ("key", "value", "run_uuid"),
    "latest_metrics": _POINT,
    "metrics": _POINT,
    "datasets": (
        "dataset_uuid", "experiment_id", "name", "digest", "dataset_source_type", "dataset_source",
        "dataset_schema", "dataset_profile",
    ),
    "inputs": ("input_uuid", "source_type", "source_id", "destination_type", "destination_id", "step"),
    "input_tags": ("input_uuid", "name", "value"),
    "logged_models": (
        "model_id", "experiment_id", "name", "artifact_location", "creation_timestamp_ms",
        "last_updated_timestamp_ms", "status", "lifecycle_stage", "model_type", "source_run_id",
        "status_message",
    ),
    "logged_model_params": ("model_id", "experiment_id", "param_key", "param_value"),
    "logged_model_tags": ("model_id", "experiment_id", "tag_key", "tag_value"),
    "logged_model_metrics": (
        "model_id", "metric_name", "metric_timestamp_ms", "metric_step", "metric_value", "experiment_id",
        "run_id", "dataset_uuid", "dataset_name", "dataset_digest",
    ),
    "trace_info": (
        "request_id", "experiment_id", "timestamp_ms", "execution_time_ms", "status", "client_request_id",
        "request_preview", "response_preview",
    ),
    "trace_tags": ("key", "value", "request_id"),
    "trace_request_metadata": ("key", "value", "request_id"),
    "trace_metrics": ("request_id", "key", "value"),
    "assessments": (
        "assessment_id", "trace_id", "name", "assessment_type", "value", "error", "created_timestamp",
        "last_updated_timestamp", "source_type", "source_id", "run_id", "span_id", "rationale", "overrides",
        "valid", "assessment_metadata",
    ),
    "spans": (
        "trace_id", "experiment_id", "span_id", "parent_span_id", "name", "type", "status",
        "start_time_unix_nano", "end_time_unix_nano", "content", "dimension_attributes",
    ),
    "span_metrics": ("trace_id", "span_id", "key", "value"),
}  # fmt: skip
_REGISTRY = {
    "registered_models": ("workspace", "name", "creation_time", "last_updated_time", "description"),
    "registered_model_tags": ("workspace", "name", "key", "value"),
    "registered_model_aliases": ("workspace", "name", "alias", "version"),
    "model_versions": (
        "workspace", "name", "version", "creation_time", "last_updated_time", "description", "user_id",
        "current_stage", "source", "storage_location", "run_id", "run_link", "status", "status_message",
    ),
    "model_version_tags": ("workspace", "name", "version", "key", "value"),
}  # fmt: skip
_WORKSPACE = "default"


def read(uri: str, begin: Callable[[str], Archive], say: Say) -> Archive:
    """Read what a server's REST API shows; an interrupted reading goes on with the next experiment.

    Raises:
        CannotRunError: the server cannot be reached, or lets nobody read, or the URI has a password.
        FailedError: it stopped answering, or PostgreSQL cannot hold a value.
    """
    from mlflow import MlflowClient
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    if urlsplit(uri).password is not None:
        raise CannotRunError(
            "leave the password out of FROM, where other processes see it: put it into "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    # Without the second, the registry is that of the environment.
    client = MlflowClient(uri, uri)
    try:
        experiments = _pages(client.search_experiments, view_type=ViewType.ALL)
    except MlflowException as error:
        raise CannotRunError(f"{uri} answers: {error.message}") from error
    archive = begin(REVISION)
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            source = _Source(client, pool, say)
            for experiment in experiments:
                number = _number(experiment.experiment_id)
                if not archive.has(f"experiments-{number}"):
                    with _Tables(archive, _EXPERIMENT, str(number)) as tables:
                        _read_experiment(source, experiment, number, tables)
                    say(
                        f"read experiment {experiment.name!r}: {tables.told('runs', 'metrics', 'trace_info')}"
                    )
            if not archive.has("registered_models-registry"):
                with _Tables(archive, _REGISTRY, "registry") as tables:
                    _read_registry(source, tables)
                say(f"read the registry: {tables.told('registered_models', 'model_versions')}")
    except MlflowException as error:
        raise FailedError(f"{uri} answers: {error.message}; run the same command to go on") from error
    return archive


class _Tables:
    """The parts of one experiment, or of the registry: all of them are there at the end, or none counts."""

    def __init__(self, archive: Archive, columns: dict[str, tuple[str, ...]], name: str) -> None:
        self._archive, self._columns, self._name = archive, columns, name
        self._parts: dict[str, Part] = {}
        self.datasets: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> _Tables:
        ending = f"-{self._name}.copy.gz"
        parts = self._archive.manifest["parts"]
        parts[:] = [part for part in parts if not part["file"].endswith(ending)]
        for table, columns in self._columns.items():
            part = self._archive.part(f"{table}-{self._name}", table, columns)
            self._parts[table] = self._stack.enter_context(part)
        return self

    def __exit__(self, *failure: Any) -> None:
        self._stack.__exit__(*failure)

    def add(self, table: str, *rows: Sequence[object]) -> None:
        self._parts[table].add(rows)

    def write(self, table: str, lines: bytes) -> None:
        self._parts[table].write(lines)

    def told(self, *tables: str) -> str:
        return ", ".join(f"{self._parts[table].rows:,} {table}" for table in tables)


class _Source:
    """One server: its client, and many questions at a time."""

    def __init__(self, client: MlflowClient, pool: ThreadPoolExecutor, say: Say) -> None:
        self.client, self._pool, self._say = client, pool, say
        self._has_bulk = True

    def together(self, tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
        """The results in order; only a few more than are being read are held."""
        ahead: deque[Future[T]] = deque()
        for task in tasks:
            ahead.append(self._pool.submit(task))
            if len(ahead) > 2 * WORKERS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def ask(self, method: str, path: str, **question: object) -> Any:
        """The answer's JSON.

        Raises:
            MlflowException: the server refuses, or did not answer several times.
        """
        from mlflow.utils.rest_utils import verify_rest_response

        response = self._answer(method, path, question)
        return json.loads(verify_rest_response(response, path).text)

    def pages(self, path: str, field: str, **question: object) -> list[Any]:
        """Everything that a search finds."""
        found: list[Any] = []
        token: dict[str, object] = {}
        while True:
            answer = self.ask("GET", f"/api/2.0/mlflow/{path}", **question, **token)
            found += answer.get(field, [])
            if not answer.get("next_page_token"):
                return found
            token = {"page_token": answer["next_page_token"]}

    def _answer(self, method: str, path: str, question: dict[str, object]) -> Response:
        from mlflow.exceptions import MlflowException
        from mlflow.utils.rest_utils import http_request

        how = {"params": question} if method == "GET" else {"json": question}
        credentials = self.client._tracking_client.store.get_host_creds()
        for attempt in range(1, _TRIES + 1):
            try:
                # It repeats what a busy server refuses; a server that restarts is away for longer.
                response: Response = http_request(credentials, path, method, **how)
                return response
            except MlflowException:
                if attempt == _TRIES:
                    raise
                time.sleep(2**attempt)
        raise AssertionError("unreachable")

    def points(self, key: str, runs: list[str]) -> bytes:
        """All points of one metric of these runs, as COPY text."""
        lines: list[bytes] = []
        while self._has_bulk and len(runs) > 1:
            question = {"run_id": runs, "metric_key": key, "max_results": _POINTS}
            response = self._answer("GET", "/ajax-api/2.0/mlflow/metrics/get-history-bulk", question)
            if response.status_code != 200:
                first, self._has_bulk = self._has_bulk, False
                if first:
                    self._say(
                        "this server gives the points of one run at a time, which takes longer "
                        f"(get-history-bulk: HTTP {response.status_code})"
                    )
                break
            found = json.loads(response.text).get("metrics", [])
            if len(found) < _POINTS:
                return b"".join([*lines, _lines(found, None)])
            # Answers are in order of runs: missing can be points of the last one, and of those after it.
            cut = found[-1]["run_id"]
            lines += [
                _lines((each for each in found if each["run_id"] != cut), None),
                self._history(key, cut),
            ]
            done = {each["run_id"] for each in found}
            runs = [run for run in runs if run not in done]
        return b"".join([*lines, *(self._history(key, run) for run in runs)])

    def _history(self, key: str, run: str) -> bytes:
        points: list[Any] = []
        token = ""
        while True:
            more = {"page_token": token} if token else {}
            answer = self.ask(
                "GET", "/api/2.0/mlflow/metrics/get-history",
                run_id=run, metric_key=key, max_results=_POINTS, **more,
            )  # fmt: skip
            points += answer.get("metrics", [])
            token = answer.get("next_page_token", "")
            if not token:
                return _lines(points, run)


def _read_experiment(source: _Source, experiment: Any, number: int, tables: _Tables) -> None:
    for run_page in _run_pages(source, experiment.experiment_id):
        runs_of: dict[str, list[str]] = {}
        for run in run_page:
            _add_run(run, number, tables)
            for metric in run["data"].get("metrics", []):
                runs_of.setdefault(metric["key"], []).append(run["info"]["run_id"])
        tasks = [
            partial(source.points, key, runs[at : at + _BULK_RUNS])
            for key, runs in runs_of.items()
            for at in range(0, len(runs), _BULK_RUNS)
        ]
        for lines in source.together(tasks):
            tables.write("metrics", lines)
    _read_logged_models(source, experiment.experiment_id, number, tables)
    _read_traces(source, experiment.experiment_id, number, tables)
    _add_tags(tables, "experiment_tags", experiment.tags, number)
    tables.add(
        "experiments",
        (number, experiment.name, _WORKSPACE, experiment.artifact_location, experiment.lifecycle_stage,
         experiment.creation_time, experiment.last_update_time),
    )  # fmt: skip


def _run_pages(source: _Source, experiment: str) -> Iterator[list[Any]]:
    token = ""
    while True:
        answer = source.ask(
            "POST", "/api/2.0/mlflow/runs/search",
            experiment_ids=[experiment], run_view_type="ALL", max_results=_RUNS, page_token=token,
        )  # fmt: skip
        yield answer.get("runs", [])
        token = answer.get("next_page_token", "")
        if not token:
            return


def _add_run(run: Any, experiment: int, tables: _Tables) -> None:
    info, data = run["info"], run["data"]
    run_id = info["run_id"]
    tags = {tag["key"]: tag.get("value", "") for tag in data.get("tags", [])}
    deleted = info.get("lifecycle_stage") == "deleted"
    ended = info.get("end_time")
    tables.add(
        "runs",
        (run_id, info.get("run_name") or tags.get("mlflow.runName", ""), "UNKNOWN", "", "",
         info.get("user_id") or tags.get("mlflow.user", ""), info.get("status"), info.get("start_time"),
         ended,
         # No answer has it; `gc` counts from it.
         (ended or info.get("start_time") or 0) if deleted else None,
         "", info.get("lifecycle_stage"), info.get("artifact_uri"), experiment),
    )  # fmt: skip
    _add_tags(tables, "tags", tags, run_id)
    tables.add("params", *((each["key"], each.get("value", ""), run_id) for each in data.get("params", [])))
    tables.write("latest_metrics", _lines(data.get("metrics", []), run_id))
    for each in run.get("inputs", {}).get("dataset_inputs", []):
        _add_dataset(each, run_id, experiment, tables)
    for each in run.get("inputs", {}).get("model_inputs", []):
        _add_input(tables, "RUN_INPUT", run_id, "MODEL_INPUT", each["model_id"])
    for each in run.get("outputs", {}).get("model_outputs", []):
        _add_input(
            tables, "RUN_OUTPUT", run_id, "MODEL_OUTPUT", each["model_id"], step=int(each.get("step", 0))
        )


def _add_dataset(found: Any, run: str, experiment: int, tables: _Tables) -> None:
    dataset = found["dataset"]
    identity = _dataset_id(experiment, dataset["name"], dataset["digest"])
    if identity not in tables.datasets:
        tables.datasets.add(identity)
        tables.add(
            "datasets",
            (identity, experiment, dataset["name"], dataset["digest"], dataset["source_type"],
             dataset["source"], dataset.get("schema"), dataset.get("profile")),
        )  # fmt: skip
    input_id = _add_input(tables, "DATASET", identity, "RUN", run)
    tables.add("input_tags", *((input_id, tag["key"], tag["value"]) for tag in found.get("tags", [])))


def _add_input(tables: _Tables, *ends: str, step: int = 0) -> str:
    input_id = _digest("input", *ends)
    tables.add("inputs", (input_id, *ends, step))
    return input_id


def _read_logged_models(source: _Source, experiment: str, number: int, tables: _Tables) -> None:
    from mlflow.exceptions import MlflowException

    try:
        models = _pages(source.client.search_logged_models, [experiment])
    except MlflowException as error:
        if _is_unknown(error):
            return
        raise
    for model in models:
        identity = model.model_id
        tables.add(
            "logged_models",
            (identity, number, model.name, model.artifact_location, model.creation_timestamp,
             model.last_updated_timestamp, model.status.to_int(), "active", model.model_type or "",
             model.source_run_id, model.status_message),
        )  # fmt: skip
        for table, pairs in (("logged_model_params", model.params), ("logged_model_tags", model.tags)):
            tables.add(table, *((identity, number, key, value) for key, value in (pairs or {}).items()))
        tables.add(
            "logged_model_metrics",
            *(
                (identity, each.key, each.timestamp, each.step, each.value, number, each.run_id,
                 _dataset_id(number, each.dataset_name, each.dataset_digest) if each.dataset_name else None,
                 each.dataset_name, each.dataset_digest)
                for each in model.metrics or []
            ),
        )  # fmt: skip


def _read_traces(source: _Source, experiment: str, number: int, tables: _Tables) -> None:
    from mlflow.exceptions import MlflowException

    store = source.client._tracking_client.store
    token = None
    while True:
        try:
            found, token = store.search_traces(locations=[experiment], max_results=_TRACES, page_token=token)
        except MlflowException as error:
            if _is_unknown(error):
                return
            raise
        for info in found:
            _add_trace(info, number, tables)
        # Spans that are not here are artifacts, traces.json.
        here = [
            info.trace_id for info in found if info.tags.get("mlflow.trace.spansLocation") == "TRACKING_STORE"
        ]
        batches = [partial(store.batch_get_traces, here[at : at + 10]) for at in range(0, len(here), 10)]
        for traces in source.together(batches):
            for trace in traces:
                for span in trace.data.spans:
                    _add_span(span, number, tables)
        if not token:
            return


def _add_trace(info: Any, experiment: int, tables: _Tables) -> None:
    from mlflow.store.tracking.dbmodels.models import SqlAssessments

    identity = info.trace_id
    tables.add(
        "trace_info",
        (identity, experiment, info.request_time, info.execution_duration, info.state.value,
         info.client_request_id, info.request_preview, info.response_preview),
    )  # fmt: skip
    _add_tags(tables, "trace_tags", info.tags, identity)
    _add_tags(tables, "trace_request_metadata", info.trace_metadata, identity)
    usage = json.loads(info.trace_metadata.get("mlflow.trace.tokenUsage", "{}"))
    tables.add("trace_metrics", *((identity, key, value) for key, value in usage.items()))
    for assessment in info.assessments:
        row = SqlAssessments.from_mlflow_entity(assessment)
        row.trace_id = identity
        row.valid = assessment.valid is not False
        tables.add("assessments", [getattr(row, column) for column in _EXPERIMENT["assessments"]])


def _add_span(span: Any, experiment: int, tables: _Tables) -> None:
    document = span.to_dict()
    known = {key: span.get_attribute(key) for key in ("mlflow.llm.model", "mlflow.llm.provider")}
    dimensions = {key: value for key, value in known.items() if value}
    tables.add(
        "spans",
        (span.trace_id, experiment, span.span_id, span.parent_id, span.name, span.span_type,
         str(span.status.status_code.value), span.start_time_ns, span.end_time_ns,
         json.dumps(document, ensure_ascii=False), json.dumps(dimensions) if dimensions else None),
    )  # fmt: skip
    costs = span.get_attribute("mlflow.llm.cost") or {}
    tables.add("span_metrics", *((span.trace_id, span.span_id, key, value) for key, value in costs.items()))


def _read_registry(source: _Source, tables: _Tables) -> None:
    client = source.client
    # Asked without MLflow's client, which leaves prompts out, and with them all models of older servers.
    names = [each["name"] for each in source.pages("registered-models/search", "registered_models")]
    # A search names no aliases.
    asked = [partial(client.get_registered_model, name) for name in names]
    for model in source.together(asked):
        quoted = model.name.replace("'", "\\'")
        versions = source.pages("model-versions/search", "model_versions", filter=f"name='{quoted}'")
        tables.add(
            "registered_models",
            (
                _WORKSPACE,
                model.name,
                model.creation_timestamp,
                model.last_updated_timestamp,
                model.description,
            ),
        )
        tables.add(
            "registered_model_tags",
            *((_WORKSPACE, model.name, key, value) for key, value in model.tags.items()),
        )
        tables.add(
            "registered_model_aliases",
            *((_WORKSPACE, model.name, alias, int(version)) for alias, version in model.aliases.items()),
        )
        download = partial(client.get_model_version_download_uri, model.name)
        places = source.together([partial(download, each["version"]) for each in versions])
        for version, place in zip(versions, places, strict=True):
            number = int(version["version"])
            tables.add(
                "model_versions",
                (_WORKSPACE, model.name, number, version.get("creation_timestamp"),
                 version.get("last_updated_timestamp"), version.get("description"), version.get("user_id"),
                 version.get("current_stage"), version.get("source"),
                 place if place != version.get("source") else None, version.get("run_id"),
                 version.get("run_link"), version.get("status"), version.get("status_message")),
            )  # fmt: skip
            tags = {tag["key"]: tag.get("value", "") for tag in version.get("tags", [])}
            tables.add(
                "model_version_tags", *((_WORKSPACE, model.name, number, *pair) for pair in tags.items())
            )


def _number(experiment: str) -> int:
    """The id for MLflow's tables: the same each time, for the task remembers what it made of it."""
    if experiment.isdigit() and int(experiment) <= _LARGEST_ID:
        return int(experiment)
    return int(_digest("experiment", experiment)[:15], 16)


def _lines(points: Iterable[Any], run: str | None) -> bytes:
    """COPY text of points; one that was logged twice is there once, as MLflow's databases keep it."""
    rows: dict[str, None] = {}
    for point in points:
        value = float(point.get("value", 0.0))
        is_nan = math.isnan(value)
        value = 0.0 if is_nan else max(-_LARGEST, min(_LARGEST, value))
        rows[
            f"{text(point['key'])}\t{value!r}\t{int(point.get('timestamp', 0))}\t{int(point.get('step', 0))}"
            f"\t{'t' if is_nan else 'f'}\t{run or point['run_id']}\n"
        ] = None
    return "".join(rows).encode()


def _add_tags(tables: _Tables, table: str, tags: dict[str, str], owner: object) -> None:
    tables.add(table, *((key, value, owner) for key, value in tags.items()))


def _dataset_id(experiment: int, name: str, digest: str) -> str:
    return _digest("dataset", experiment, name, digest)


def _digest(*parts: object) -> str:
    """The same id at each reading, so that a second import finds the row."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def _is_unknown(error: Any) -> bool:
    """Whether the server is older than the question."""
    return error.error_code in ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")


def _pages(search: Any, *arguments: Any, **options: Any) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = search(*arguments, page_token=token, **options)
        found.extend(page)
        token = page.token
        if not token:
            return found
