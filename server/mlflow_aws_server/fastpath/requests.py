"""What a request asks for, when it is exactly what MLflow's own client would send.

Every function returns values that stock MLflow would accept and handle in the same way, or raises
`LeaveToStockError`: stock answers unknown fields, alternative spellings that protobuf's JSON allows, and
everything that it would refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import orjson
from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchUtils
from mlflow.utils.validation import (
    MAX_ENTITIES_PER_BATCH,
    MAX_ENTITY_KEY_LENGTH,
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
    MAX_TAG_VAL_LENGTH,
    path_not_unique,
    validate_param_and_metric_name,
)

from mlflow_aws_server.fastpath.errors import LeaveToStockError

RUN_NAME_TAG = "mlflow.runName"

_LARGEST_DOUBLE = 1.7976931348623157e308
_MAX_INT64 = 2**63 - 1
_MIN_INT64 = -(2**63)
_MAX_INT32 = 2**31 - 1
# The column is shorter than MLflow's own rule for run ids allows.
_RUN_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_\-]{0,31}")
_EXPERIMENT_ID = re.compile(r"0|[1-9][0-9]{0,9}")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,9})")
_METRIC_FIELDS = frozenset(
    ("key", "value", "timestamp", "step", "model_id", "dataset_name", "dataset_digest", "run_id")
)
_PAIR_FIELDS = frozenset(("key", "value"))


@dataclass(slots=True)
class Metrics:
    """Points to log, as columns.

    `first_seen` numbers the keys in the order they came, at the point that wins for its key; it is 0 at
    all other points. It is empty if all keys differ, and `is_nan` if no value is NaN. Most often both
    are, and each column costs a fifth of the time that sending a batch takes.
    """

    keys: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    is_nan: list[bool] = field(default_factory=list)
    first_seen: list[int] = field(default_factory=list)
    for_models: dict[object, ModelMetric] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """A point that belongs to a logged model too."""

    model_id: str
    key: str
    value: float
    timestamp: int
    step: int
    dataset_name: str | None
    dataset_digest: str | None


@dataclass(slots=True)
class Batch:
    """A log-batch request. Tags are unique by key; the last value of a key counts."""

    run_id: str
    metrics: Metrics
    params: dict[str, str]
    tags: dict[str, str]


def body(raw: bytes) -> dict[str, Any]:
    """The JSON object in a request's body."""
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError:
        # Python's json accepts some of these: NaN, other encodings, lone surrogates.
        raise LeaveToStockError("the body is not valid JSON") from None
    if type(parsed) is not dict:
        raise LeaveToStockError("the body is not a JSON object")
    return parsed


def query(raw: bytes, known: frozenset[str]) -> dict[str, list[str]]:
    """The query's arguments, each of a known name."""
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=500)
    except ValueError:
        raise LeaveToStockError("the query is not UTF-8") from None
    if not pairs:
        raise LeaveToStockError("no query")
    arguments: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in known:
            raise LeaveToStockError("an unknown argument")
        arguments.setdefault(name, []).append(value)
    return arguments


def single(arguments: Mapping[str, list[str]], name: str) -> str:
    """The value of an argument that must be given exactly once."""
    values = arguments.get(name, ())
    if len(values) != 1:
        raise LeaveToStockError("an argument that is not given exactly once")
    return values[0]


def optional(arguments: Mapping[str, list[str]], name: str) -> str | None:
    """The value of an argument that may be given once."""
    return single(arguments, name) if name in arguments else None


def decimal(value: str, *, least: int, most: int = _MAX_INT32) -> int:
    """A whole number in a query, written plainly."""
    if _DECIMAL.fullmatch(value) is None or not least <= int(value) <= most:
        raise LeaveToStockError("the number is not plain, or out of range")
    return int(value)


def page_offset(token: str | None) -> int:
    """The offset that a page token stands for."""
    try:
        offset = SearchUtils.parse_start_offset_from_page_token(token)
    except (MlflowException, AttributeError, TypeError):
        raise LeaveToStockError("the page token is not valid") from None
    if type(offset) is not int or not 0 <= offset <= _MAX_INT64:
        raise LeaveToStockError("the offset is not valid")
    return offset


def only(fields: Mapping[str, Any], known: frozenset[str]) -> None:
    """Leave other fields than `known` ones to stock."""
    if not fields.keys() <= known:
        raise LeaveToStockError("unknown fields")


def run_id(value: object) -> str:
    """A run id of the form that the store can hold."""
    if type(value) is not str or _RUN_ID.fullmatch(value) is None:
        raise LeaveToStockError("the run id is not valid")
    return value


def run_id_or_uuid(fields: Mapping[str, Any]) -> str:
    """`run_id`; MLflow's client still sends its old name `run_uuid` too."""
    if "run_uuid" in fields and type(fields["run_uuid"]) is not str:
        raise LeaveToStockError("run_uuid is not a string")
    return run_id(fields.get("run_id"))


def experiment_id(value: object) -> int:
    """An experiment id as MLflow writes it: a decimal number in a string."""
    if type(value) is not str or _EXPERIMENT_ID.fullmatch(value) is None or int(value) > _MAX_INT32:
        raise LeaveToStockError("the experiment id is not valid")
    return int(value)


def text(value: object) -> str:
    """A string."""
    if type(value) is not str:
        raise LeaveToStockError("not a string")
    return value


def int64(value: object) -> int:
    """A whole number, written as one."""
    if type(value) is not int or not _MIN_INT64 <= value <= _MAX_INT64:
        raise LeaveToStockError("not a 64-bit integer")
    return value


def int32(value: object) -> int:
    """A whole number, written as one."""
    if type(value) is not int or not -_MAX_INT32 - 1 <= value <= _MAX_INT32:
        raise LeaveToStockError("not a 32-bit integer")
    return value


def double(value: object) -> tuple[float, bool]:
    """A metric's value as MLflow stores it, and whether it is NaN."""
    if type(value) is float:
        # Stock sends numbers as decimal literals, which have no negative zero.
        return value + 0.0, False
    if type(value) is int:
        return float(value), False
    if value == "NaN":
        return 0.0, True
    if value == "Infinity":
        return _LARGEST_DOUBLE, False
    if value == "-Infinity":
        return -_LARGEST_DOUBLE, False
    raise LeaveToStockError("not a number")


@lru_cache(maxsize=16_384)
def _is_valid_name(name: str) -> bool:
    return (
        0 < len(name) <= MAX_ENTITY_KEY_LENGTH
        and validate_param_and_metric_name(name) is not None
        and not path_not_unique(name)
    )


def entity_name(value: object) -> str:
    """The key of a metric, param or tag by MLflow's rules."""
    if type(value) is not str or not _is_valid_name(value):
        raise LeaveToStockError("the name is not valid")
    return value


def param_value(value: object) -> str:
    """A param's value within MLflow's limit (beyond it, stock truncates or refuses)."""
    if type(value) is not str or len(value) > MAX_PARAM_VAL_LENGTH:
        raise LeaveToStockError("the param value is not valid")
    return value


def tag_value(value: object) -> str:
    """A tag's value within MLflow's limit (beyond it, stock truncates or refuses)."""
    if type(value) is not str or len(value) > MAX_TAG_VAL_LENGTH:
        raise LeaveToStockError("the tag value is not valid")
    return value


def log_batch(raw: bytes) -> Batch:
    """A `LogBatch`."""
    fields = body(raw)
    only(fields, _BATCH_FIELDS)
    metrics, params, tags = listed(fields, "metrics"), listed(fields, "params"), listed(fields, "tags")
    if len(metrics) + len(params) + len(tags) > MAX_ENTITIES_PER_BATCH:
        raise LeaveToStockError("too many entities")
    return Batch(
        run_id=run_id(fields.get("run_id")),
        metrics=_metrics(metrics),
        params=_params(params),
        tags=_tags(tags),
    )


_BATCH_FIELDS = frozenset(("run_id", "metrics", "params", "tags"))
_LOG_METRIC_FIELDS = frozenset(
    ("run_id", "run_uuid", "key", "value", "timestamp", "step", "model_id", "dataset_name", "dataset_digest")
)
_LOG_PAIR_FIELDS = frozenset(("run_id", "run_uuid", "key", "value"))


def log_metric(raw: bytes) -> Batch:
    """A `LogMetric`, as a batch of one point."""
    fields = body(raw)
    only(fields, _LOG_METRIC_FIELDS)
    run = run_id_or_uuid(fields)
    point = {name: value for name, value in fields.items() if name in _METRIC_FIELDS}
    return Batch(run_id=run, metrics=_metrics([point]), params={}, tags={})


def log_param(raw: bytes) -> Batch:
    """A `LogParam`, as a batch of one param."""
    fields = body(raw)
    only(fields, _LOG_PAIR_FIELDS)
    run = run_id_or_uuid(fields)
    params = {entity_name(fields.get("key")): param_value(fields.get("value"))}
    return Batch(run_id=run, metrics=Metrics(), params=params, tags={})


def set_tag(raw: bytes) -> Batch:
    """A `SetTag`, as a batch of one tag."""
    fields = body(raw)
    only(fields, _LOG_PAIR_FIELDS)
    run = run_id_or_uuid(fields)
    return Batch(run_id=run, metrics=Metrics(), params={}, tags=_tags([_pair(fields)]))


def new_run_tags(fields: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a `CreateRun`: MLflow checks only that they fit their columns."""
    tags: dict[str, str] = {}
    items = listed(fields, "tags")
    for item in items:
        if type(item) is not dict:
            raise LeaveToStockError("a tag is not an object")
        only(item, _PAIR_FIELDS)
        key = text(item.get("key"))
        if not 0 < len(key) <= MAX_ENTITY_KEY_LENGTH:
            raise LeaveToStockError("a tag's key does not fit its column")
        tags[key] = tag_value(item.get("value"))
    if len(tags) < len(items):
        raise LeaveToStockError("a tag is given twice")
    return tags


def _pair(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in _PAIR_FIELDS}


def listed(fields: Mapping[str, Any], name: str) -> list[Any]:
    """A list, empty when it is not given."""
    value = fields.get(name, [])
    if type(value) is not list:
        raise LeaveToStockError("a field that is not a list")
    return value


def _metrics(points: list[Any]) -> Metrics:
    if len(points) > MAX_METRICS_PER_BATCH:
        raise LeaveToStockError("too many metrics")
    metrics = Metrics()
    keys, values, timestamps = metrics.keys, metrics.values, metrics.timestamps
    steps, is_nan, first_seen = metrics.steps, metrics.is_nan, metrics.first_seen
    best: dict[str, int] = {}
    for position, point in enumerate(points):
        if type(point) is not dict:
            raise LeaveToStockError("a metric is not an object")
        key, value, timestamp, step = (
            point.get("key"),
            point.get("value"),
            point.get("timestamp"),
            point.get("step", 0),
        )
        if type(key) is not str or not _is_valid_name(key):
            raise LeaveToStockError("a metric's name is not valid")
        nan = False
        if type(value) is float:
            value += 0.0
        else:
            value, nan = double(value)
        if type(timestamp) is not int or not 0 <= timestamp <= _MAX_INT64:
            raise LeaveToStockError("a timestamp is not valid")
        if type(step) is not int or not _MIN_INT64 <= step <= _MAX_INT64:
            raise LeaveToStockError("a step is not valid")
        if len(point) > 4 or not point.keys() <= _PLAIN_METRIC_FIELDS:
            _model_metric(metrics, point, value=value, is_nan=nan)
        keys.append(key)
        values.append(value)
        timestamps.append(timestamp)
        steps.append(step)
        is_nan.append(nan)
        # MLflow's order among points of one key: step, timestamp, value; the first of equals stays.
        rival = best.get(key)
        if rival is None or (step, timestamp, value) > (steps[rival], timestamps[rival], values[rival]):
            best[key] = position
    if len(best) < len(keys):
        first_seen.extend([0] * len(keys))
        for number, position in enumerate(best.values(), start=1):
            first_seen[position] = number
    if not any(is_nan):
        is_nan.clear()
    return metrics


_PLAIN_METRIC_FIELDS = frozenset(("key", "value", "timestamp", "step"))


def _model_metric(metrics: Metrics, point: dict[str, Any], *, value: float, is_nan: bool) -> None:
    only(point, _METRIC_FIELDS)
    model_id = text(point.get("model_id", "")) or None
    dataset_name = text(point.get("dataset_name", "")) or None
    dataset_digest = text(point.get("dataset_digest", "")) or None
    text(point.get("run_id", ""))
    if (dataset_name is None) != (dataset_digest is None):
        raise LeaveToStockError("a dataset has only a name or only a digest")
    if model_id is None:
        return
    metric = ModelMetric(
        model_id=model_id,
        key=point["key"],
        value=value,
        timestamp=point["timestamp"],
        step=point.get("step", 0),
        dataset_name=dataset_name,
        dataset_digest=dataset_digest,
    )
    # An exact repetition counts once; NaN equals nothing, so a repeated NaN is a conflict, left to stock.
    identity = object() if is_nan else (metric, point.get("run_id"))
    metrics.for_models.setdefault(identity, metric)


def _params(items: list[Any]) -> dict[str, str]:
    if len(items) > MAX_PARAMS_TAGS_PER_BATCH:
        raise LeaveToStockError("too many params")
    params: dict[str, str] = {}
    for item in items:
        if type(item) is not dict:
            raise LeaveToStockError("a param is not an object")
        only(item, _PAIR_FIELDS)
        params[entity_name(item.get("key"))] = param_value(item.get("value"))
    if len(params) < len(items):
        raise LeaveToStockError("a param is given twice")
    return params


def _tags(items: list[Any]) -> dict[str, str]:
    if len(items) > MAX_PARAMS_TAGS_PER_BATCH:
        raise LeaveToStockError("too many tags")
    tags: dict[str, str] = {}
    for item in items:
        if type(item) is not dict:
            raise LeaveToStockError("a tag is not an object")
        only(item, _PAIR_FIELDS)
        tags[entity_name(item.get("key"))] = tag_value(item.get("value"))
    if RUN_NAME_TAG in tags:
        # Setting this tag renames the run.
        raise LeaveToStockError("a tag names the run")
    return tags
