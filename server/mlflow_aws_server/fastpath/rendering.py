"""Responses, byte for byte as MLflow's `message_to_json` writes them, without building messages.

MLflow renders protobuf messages with `json.dumps(…, indent=2)`: fields in the order of their numbers,
unset fields left out, int64 as numbers, everything beyond ASCII escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any

from mlflow_aws_server.fastpath.errors import LeaveToStockError

EMPTY = b"{}"

# A string in JSON, all ASCII.
quote = encode_basestring_ascii


def number(value: float, is_nan: bool) -> str:
    """A protobuf double in JSON; NaN is stored as the value 0 with a flag."""
    if is_nan:
        return '"NaN"'
    written = repr(value)
    return written if written[-1] not in "fn" else _NOT_FINITE[written]


_NOT_FINITE = {"inf": '"Infinity"', "-inf": '"-Infinity"', "nan": '"NaN"'}


def _object(fields: Sequence[str], indent: int) -> str:
    """A JSON object of rendered fields whose opening brace stands at the current position."""
    if not fields:
        return "{}"
    pad = "\n" + " " * (indent + 2)
    return "{" + pad + ("," + pad).join(fields) + "\n" + " " * indent + "}"


def _array(items: Sequence[str], indent: int) -> str:
    pad = "\n" + " " * (indent + 2)
    return "[" + pad + ("," + pad).join(items) + "\n" + " " * indent + "]"


class Items:
    """Renders the small repeated objects of a response (metrics, params, tags) at one indentation.

    `metric` takes key, value, timestamp and step, `metric_with_run_id` the run id too; strings and doubles
    must already be rendered. They are templates for `%`, Python's fastest way to fill one.
    """

    def __init__(self, indent: int) -> None:
        outer, inner = "\n" + " " * indent, "\n" + " " * (indent + 2)
        point = f'{{{inner}"key": %s,{inner}"value": %s,{inner}"timestamp": %d,{inner}"step": %d'
        self.metric = point + outer + "}"
        self.metric_with_run_id = f'{point},{inner}"run_id": %s{outer}}}'
        self._pair = f'{{{inner}"key": %s,{inner}"value": %s{outer}}}'
        self._key = f'{{{inner}"key": %s{outer}}}'

    def pairs(self, pairs: Iterable[tuple[str, str | None]]) -> list[str]:
        """Params or tags; one without a value is written without it."""
        pair, lone = self._pair, self._key
        return [
            lone % quote(key) if value is None else pair % (quote(key), quote(value)) for key, value in pairs
        ]


def run_info(run: Any, *, name: str | None, indent: int) -> str:
    """A `RunInfo`, from a row of `runs`.

    Raises:
        LeaveToStockError: a column that RunInfo requires is null.
    """
    if run["user_id"] is None or run["status"] is None or run["start_time"] is None:
        raise LeaveToStockError("a run without a user, status or start time")
    run_id = quote(run["run_uuid"])
    fields = [f'"run_uuid": {run_id}', f'"experiment_id": "{run["experiment_id"]}"']
    if name is not None:
        fields.append(f'"run_name": {quote(name)}')
    fields += [
        f'"user_id": {quote(run["user_id"])}',
        f'"status": {quote(run["status"])}',
        f'"start_time": {run["start_time"]}',
    ]
    if run["end_time"]:
        fields.append(f'"end_time": {run["end_time"]}')
    if run["artifact_uri"]:
        fields.append(f'"artifact_uri": {quote(run["artifact_uri"])}')
    fields += [f'"lifecycle_stage": {quote(run["lifecycle_stage"])}', f'"run_id": {run_id}']
    return _object(fields, indent)


class RunRenderer:
    """Renders whole runs at one indentation."""

    def __init__(self, indent: int) -> None:
        self._indent = indent
        self._items = Items(indent + 6)

    def run(
        self,
        run: Any,
        *,
        tags: Sequence[tuple[str, str | None]],
        params: Sequence[tuple[str, str]] = (),
        metrics: Iterable[tuple[str, float, int | None, int, bool]] = (),
        inputs: dict[str, Any] | None = None,
        outputs: dict[str, Any] | None = None,
    ) -> str:
        """The whole `Run`: a row of `runs` and what belongs to it, in the order to show.

        `outputs` None leaves the field out, as MLflow does for a run it has just created.
        """
        indent, items = self._indent + 2, self._items
        metric = items.metric
        data = []
        shown = []
        for key, value, timestamp, step, is_nan in metrics:
            if timestamp is None:
                raise LeaveToStockError("a latest metric without a timestamp")
            shown.append(metric % (quote(key), number(value, is_nan), timestamp, step))
        if shown:
            data.append('"metrics": ' + _array(shown, indent + 2))
        if params:
            data.append('"params": ' + _array(items.pairs(params), indent + 2))
        if tags:
            data.append('"tags": ' + _array(items.pairs(tags), indent + 2))
        fields = [
            '"info": ' + run_info(run, name=run_name(run["name"], tags), indent=indent),
            '"data": ' + _object(data, indent),
            '"inputs": ' + _indented(inputs or {}, indent),
        ]
        if outputs is not None:
            fields.append('"outputs": ' + _indented(outputs, indent))
        return _object(fields, self._indent)


def run_name(name: str | None, tags: Iterable[tuple[str, str | None]]) -> str | None:
    """The run's name; runs logged by MLflow before 1.30 have it only as a tag."""
    if name:
        return name
    return next((value for key, value in tags if key == "mlflow.runName" and value), None) or name


def wrapped(field: str, value: str) -> bytes:
    """A response with one field."""
    return f'{{\n  "{field}": {value}\n}}'.encode("ascii")


def listed(field: str, items: Sequence[str], *, next_page_token: str | None = None) -> bytes:
    """A response with one repeated field, left out when empty, and a page token if there is one."""
    fields = []
    if items:
        fields.append(f'"{field}": ' + _array(items, 2))
    if next_page_token:
        fields.append(f'"next_page_token": {quote(next_page_token)}')
    return _object(fields, 0).encode("ascii")


def _indented(value: dict[str, Any], indent: int) -> str:
    # Strings in JSON hold no raw line break, so every one found here is layout.
    return json.dumps(value, indent=2).replace("\n", "\n" + " " * indent) if value else "{}"
