"""Draws a CloudWatch dashboard from its body, as the console lays it out, with the data that CloudWatch has.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

from __future__ import annotations

import datetime as dt
import json
import random
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib

from local import demo_roles
from local.state import State
from tests.local.watched import Watched, now
from tests.local.widgets import Line, lines, plain
from tests.stacks.monitoring.cloudwatch import holds, value_of

matplotlib.use("svg")
# The same data give the same bytes; text stays text.
matplotlib.rcParams.update({"svg.hashsalt": "dashboard", "svg.fonttype": "none", "font.size": 7})

from matplotlib import dates, pyplot  # noqa: E402 - the backend is chosen first

_COLUMNS = 24
_UNIT_INCHES, _ROW_INCHES = 0.6, 0.42
_INK, _PAPER, _CARD, _GRID = "#16191f", "#f2f3f3", "#ffffff", "#e9ebed"
# CloudWatch's own order.
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")
_STATES = {"OK": "#1d8102", "ALARM": "#d13212", "INSUFFICIENT_DATA": "#687078"}

Points = Mapping[dt.datetime, float]


def draw(
    body: Mapping[str, Any],
    file: Path,
    *,
    points: Callable[[Mapping[str, Any]], Points],
    states: Mapping[str, str],
    title: str,
    span: tuple[dt.datetime, dt.datetime],
) -> None:
    """Write the picture of some time: `points` are a metric's data, `states` the alarms' by their ARN."""
    # And the title's.
    rows = max(each["y"] + each["height"] for each in body["widgets"]) + 1
    figure = pyplot.figure(figsize=(_COLUMNS * _UNIT_INCHES, rows * _ROW_INCHES), facecolor=_PAPER)
    figure.text(0.008, 1 - 0.55 / rows, title, size=13, weight="bold", color=_INK, va="center")
    for widget in body["widgets"]:
        left, top = widget["x"] / _COLUMNS, 1 - (widget["y"] + 1) / rows
        width, height = widget["width"] / _COLUMNS, widget["height"] / rows
        if widget["type"] != "text":
            figure.add_artist(
                pyplot.Rectangle(
                    (left + 0.003, top - height + 0.06 / rows), width - 0.006, height - 0.12 / rows,
                    transform=figure.transFigure, facecolor=_CARD, edgecolor="#d5dbdb", linewidth=0.6,
                    zorder=-1,
                )
            )  # fmt: skip
        if heading := widget["properties"].get("title"):
            figure.text(
                left + 0.011, top - 0.38 / rows, heading, size=8.5, weight="bold", color=_INK, va="center"
            )
        inside = (left + 0.011, top - height + 0.2 / rows, width - 0.022, height - 0.75 / rows)
        axes = _WIDGETS[widget["type"]](figure, inside, widget["properties"], points, states)
        if axes is not None:
            axes.set_xlim(*span)
    figure.savefig(file, facecolor=_PAPER, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def _text(figure: Any, inside: Any, properties: Mapping[str, Any], *_: Any) -> None:
    left, bottom, _width, height = inside
    row = _ROW_INCHES / figure.get_size_inches()[1]
    at = bottom + height + 0.25 * row
    for line in filter(None, properties["markdown"].splitlines()):
        is_heading = line.startswith("#")
        size, weight = (10.5, "bold") if is_heading else (8, "normal")
        figure.text(left, at, plain(line), size=size, weight=weight, va="center", color=_INK)
        at -= 0.5 * row


def _alarms(
    figure: Any, inside: Any, properties: Mapping[str, Any], _: Any, states: Mapping[str, str]
) -> None:
    axes = figure.add_axes(inside)
    axes.set_axis_off()
    columns = max(1, round(inside[2] * 6))
    rows = -(-len(properties["alarms"]) // columns)
    for number, arn in enumerate(properties["alarms"]):
        x, y = number % columns / columns, 1 - (number // columns + 0.5) / rows
        axes.scatter([x + 0.008], [y], s=26, color=_STATES[states.get(arn, "INSUFFICIENT_DATA")], marker="s")
        name = arn.rpartition(":")[2].rpartition("-")[2]
        axes.text(x + 0.02, y, name, va="center", color=_INK)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _metrics(
    figure: Any,
    inside: Any,
    properties: Mapping[str, Any],
    points: Callable[[Mapping[str, Any]], Points],
    _: Any,
) -> Any:
    shown = list(lines(properties))
    data = {each.query["Id"]: _points(each, shown, points) for each in shown}
    visible = [each for each in shown if each.is_visible]
    if properties.get("view") == "singleValue":
        _single_values(figure, inside, visible, data)
        return None
    left, bottom, width, height = inside
    axes = figure.add_axes((left + 0.02, bottom + height * 0.29, width - 0.03, height * 0.67))
    right = axes.twinx() if any(each.is_right for each in visible) else None
    for number, each in enumerate(visible):
        colour = each.colour or _COLOURS[number % len(_COLOURS)]
        found = sorted(data[each.query["Id"]].items())
        (right if each.is_right and right else axes).plot(
            [at for at, _value in found], [value for _at, value in found],
            color=colour, linewidth=1.1, label=each.label, marker="." if len(found) < 3 else None,
        )  # fmt: skip
    limits = properties.get("annotations", {}).get("horizontal", [])
    for line in limits:
        name = f"{line['label']} ({_short(line['value'])})"
        axes.axhline(line["value"], color=_STATES["ALARM"], linewidth=0.8, linestyle="--", label=name)
    highest = max((line.get_ydata()[at] for line in axes.get_lines()[: len(visible)]
                   for at in range(len(line.get_xdata()))), default=0)  # fmt: skip
    # A threshold far beyond the data would flatten them; the legend names it all the same.
    near = [line["value"] for line in limits if line["value"] <= 4 * highest]
    axes.set_ylim(0, 1.08 * max([highest, *near]) or 1)
    for each_axes in filter(None, (axes, right)):
        each_axes.tick_params(length=0, colors="#545b64", labelsize=6)
        each_axes.yaxis.set_major_locator(pyplot.MaxNLocator(4))
        each_axes.yaxis.set_major_formatter(lambda value, _position: _short(value))
        for spine in each_axes.spines.values():
            spine.set_visible(False)
    axes.grid(axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(dates.MinuteLocator())
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    handles = [
        line for each in (axes, right) if each for line in each.get_lines() if line.get_label()[0] != "_"
    ]
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(-0.06, -0.1), ncols=3, frameon=False,
        fontsize=6.5, handlelength=0.9, columnspacing=1.2, labelcolor=_INK,
    )  # fmt: skip
    return axes


def _single_values(figure: Any, inside: Any, visible: Sequence[Line], data: Mapping[str, Points]) -> None:
    left, bottom, width, height = inside
    for number, each in enumerate(visible):
        found = data[each.query["Id"]]
        x = left + width * (number + 0.5) / len(visible)
        value = _short(found[max(found)]) if found else "--"
        figure.text(x, bottom + height * 0.55, value, size=17, ha="center", va="center", color=_INK)
        figure.text(x, bottom + height * 0.15, each.label, size=7, ha="center", va="center", color="#545b64")


def _points(line: Line, others: Sequence[Line], points: Callable[[Mapping[str, Any]], Points]) -> Points:
    if "MetricStat" in line.query:
        return points(line.query["MetricStat"])
    used = {
        each.query["Id"]: each.query
        for each in others
        if "MetricStat" in each.query and re.search(rf"\b{each.query['Id']}\b", line.query["Expression"])
    }
    series = {name: points(query["MetricStat"]) for name, query in used.items()}
    moments = sorted({at for each in series.values() for at in each})
    names = {name: query["MetricStat"]["Metric"]["MetricName"] for name, query in used.items()}
    values = value_of(
        {"Metrics": [*({**query, "ReturnData": False} for query in used.values()), dict(line.query)]},
        {names[name]: [each.get(at) for at in moments] for name, each in series.items()},
    )
    return {at: value for at, value in zip(moments, values, strict=True) if value is not None}


def _short(value: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value * 1e6:.3g}µ" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


_WIDGETS: Mapping[str, Callable[..., Any]] = {"text": _text, "alarm": _alarms, "metric": _metrics}


def main() -> None:
    """Draw the dashboard of what `make up` runs, after so many minutes of a load."""
    watched, began = Watched(State()), now()
    end = began + dt.timedelta(minutes=float(sys.argv[2]))
    token = watched.token(demo_roles.assume(watched.aws, "contributor"))
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda number: _load(watched, token, end, number), range(3)))
    draw_deployed(watched, Path(sys.argv[1]), since=began)


def draw_deployed(watched: Watched, file: Path, *, since: dt.datetime) -> None:
    """Draw the deployed dashboard with what CloudWatch has since then."""
    cloudwatch = watched.aws.client("cloudwatch")
    (entry,) = cloudwatch.list_dashboards()["DashboardEntries"]
    described = cloudwatch.get_dashboard(DashboardName=entry["DashboardName"])["DashboardBody"]

    def points(stat: Mapping[str, Any]) -> Points:
        # What the laptop measures oftener than each minute is drawn oftener.
        is_own = stat["Metric"]["Namespace"] in ("MLflowOnAws", "AWS/ECS")
        period = 60 if is_own or stat["Period"] > 300 else 15
        values = watched.values_of({**stat, "Period": period}, since=since)
        scale = 60 / period if stat["Stat"] == "Sum" else 1
        return {at: value * scale for at, value in values.items()}

    alarms = cloudwatch.describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"], MaxRecords=100)
    states = {each["AlarmArn"]: watched.state_now(each, since=since) for each in alarms["MetricAlarms"]}
    names = {each["AlarmName"]: states[each["AlarmArn"]] for each in alarms["MetricAlarms"]}
    for each in alarms["CompositeAlarms"]:
        states[each["AlarmArn"]] = "ALARM" if holds(each["AlarmRule"], names) else "OK"
    draw(
        json.loads(described),
        file,
        points=points,
        states=states,
        title=entry["DashboardName"],
        span=(since, now()),
    )


def _load(watched: Watched, token: str, end: dt.datetime, number: int) -> None:
    """Train, keep a file, search, and ask for what is not there, more and less."""
    chance = random.Random(number)
    bucket, s3 = watched.endpoints["bucket"], demo_roles.assume(watched.aws, "contributor").client("s3")
    while now() < end:
        _, made = watched.send(token, "/api/2.0/mlflow/runs/create", {"experiment_id": "0", "start_time": 1})
        run = made.get("run", {}).get("info", {}).get("run_id", "")
        for step in range(8):
            metrics = [{"key": f"loss-{n}", "value": n, "timestamp": step, "step": step} for n in range(20)]
            watched.send(token, "/api/2.0/mlflow/runs/log-batch", {"run_id": run, "metrics": metrics})
        key = f"artifacts/0/{run}/artifacts/model.bin"
        s3.put_object(Bucket=bucket, Key=key, Body=bytes(chance.randrange(50_000)))
        s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        watched.send(token, "/api/2.0/mlflow/runs/search", {"experiment_ids": ["0"], "max_results": 50})
        if chance.random() < 0.2:
            watched.ask(token, "/api/2.0/mlflow/runs/get?run_id=absent")
        time.sleep(chance.random() * (2 if (end - now()).total_seconds() % 240 > 120 else 0.3))


if __name__ == "__main__":
    main()
