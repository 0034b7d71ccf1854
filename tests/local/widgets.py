"""What a dashboard's body says that it shows.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """What a widget shows: a metric, or an expression over the widget's other ones."""

    label: str
    query: Mapping[str, Any]
    is_visible: bool
    is_right: bool
    colour: str | None


def lines(properties: Mapping[str, Any]) -> Iterator[Line]:
    """A metric widget's rows; `.` repeats what is above, and `...` all up to the last parts of it."""
    above: list[str] = []
    for number, row in enumerate(properties.get("metrics", [])):
        options = row[-1] if isinstance(row[-1], dict) else {}
        parts = [each for each in row if isinstance(each, str)]
        if parts[:1] == ["..."]:
            parts = above[: len(above) - len(parts) + 1] + parts[1:]
        parts = [above[at] if each == "." else each for at, each in enumerate(parts)]
        name = options.get("id", f"unnamed{number}")
        if "expression" in options:
            query: dict[str, Any] = {"Id": name, "Expression": options["expression"]}
        else:
            above = parts
            namespace, metric, *dimensions = parts
            pairs = zip(dimensions[::2], dimensions[1::2], strict=True)
            query = {
                "Id": name,
                "MetricStat": {
                    "Metric": {
                        "Namespace": namespace,
                        "MetricName": metric,
                        "Dimensions": [{"Name": key, "Value": value} for key, value in pairs],
                    },
                    "Period": options.get("period", properties.get("period", 300)),
                    "Stat": options.get("stat", properties.get("stat", "Average")),
                },
            }
        yield Line(
            label=options.get("label") or (parts[1] if parts else options.get("expression", "")),
            query=query,
            is_visible=options.get("visible", True),
            is_right=options.get("yAxis") == "right",
            colour=options.get("color"),
        )


def texts(body: Mapping[str, Any]) -> list[str]:
    """What a reader of the picture finds for each widget: its title, and the label of each of its lines."""
    found = []
    for widget in body["widgets"]:
        properties = widget["properties"]
        if widget["type"] == "text":
            found += [plain(line) for line in properties["markdown"].splitlines() if plain(line)]
        if title := properties.get("title"):
            found.append(title)
        if widget["type"] == "metric":
            found += [each.label for each in lines(properties) if each.is_visible]
    return found


def plain(markdown: str) -> str:
    """A line of Markdown as it is read."""
    linked = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return re.sub(r"[*`_]{1,2}(\S.*?)[*`_]{1,2}", r"\1", linked).lstrip("# ").strip()
