"""The decision that leads to a promotion: its policy, its rules and the figures that were judged.

Clients send it with the request. It is kept in the same history entry as the change, after its figures were
found to be the run's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from mlflow_aws_server.provenance.errors import conflict, unclear

FIELD = "mlflow_aws.decision"
"""The field of a request that holds it. MLflow does not get it."""

LARGEST = 64 * 1024
"""In bytes, written as JSON without spaces."""

_LONGEST_PROBLEM = 300
_NO_NUMBERS = ("NaN", "Infinity", "-Infinity")


def _from_json(value: object) -> object:
    # As protobuf's JSON, and so MLflow's API, writes what JSON has no number for.
    return float(value) if isinstance(value, str) and value in _NO_NUMBERS else value


def _to_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


Text = Annotated[str, StringConstraints(max_length=10_000)]
Figure = Annotated[float, BeforeValidator(_from_json)]
MetricName = Annotated[str, StringConstraints(min_length=1, max_length=250, pattern=r"^[^\x00]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class _Policy(_Part):
    file: Text
    version: int | Text
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Rule(_Part):
    rule: Text
    passed: bool
    observed: Text
    required: Text
    figures: dict[Text, Figure | bool | Text | None]


class _Document(_Part):
    # `schema` is a name that pydantic keeps for itself.
    number: Annotated[int, Field(alias="schema", ge=1, le=1)]
    action: Text
    policy: _Policy
    rules: list[_Rule]
    compared_with: Text | None
    figures: dict[MetricName, Figure]
    ci: dict[Text, Text] | None


class PromotionDecision:
    """A decision of the right types."""

    def __init__(self, document: _Document) -> None:
        self.figures: Mapping[str, float] = document.figures
        dumped = document.model_dump(by_alias=True)
        for part in (dumped, *dumped["rules"]):
            part["figures"] = figures_as_json(part["figures"])
        self.document: Mapping[str, Any] = dumped
        """It as JSON that any parser reads."""

    @classmethod
    def read(cls, raw: object) -> PromotionDecision | None:
        """Read a request's field; None if there is none.

        Raises:
            ProvenanceError: it is too large, or a part of it is missing, unknown or of another type.
        """
        if raw is None:
            return None
        try:
            size = len(json.dumps(raw, separators=(",", ":")))
        except RecursionError:
            raise unclear(f"`{FIELD}` is nested too deeply") from None
        if size > LARGEST:
            raise unclear(f"`{FIELD}` has {size} bytes; at most {LARGEST} are accepted")
        try:
            return cls(_Document.model_validate(raw))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, (FIELD, *first["loc"])))
            problem = f"{place}: {first['msg']}"[:_LONGEST_PROBLEM]
            raise unclear(f"the decision cannot be read: {problem}") from None

    def check(self, found: Mapping[str, float], *, run_id: str | None) -> None:
        """Compare with what the run has measured last.

        Raises:
            ProvenanceError: 409, a figure is another one.
        """
        for name, claimed in sorted(self.figures.items()):
            if name not in found or not _same(claimed, found[name]):
                run = f"the run {run_id}" if run_id else "the version, which has no run,"
                has = f"has {_to_json(found[name])!r}" if name in found else "has none of that name"
                raise conflict(
                    f"The decision counts on {_to_json(claimed)!r} for the metric {name!r}, but {run} {has}. "
                    "Nothing was changed: judge what is measured now."
                )


def figures_as_json(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures as JSON that any parser reads."""
    return {name: _to_json(value) if isinstance(value, float) else value for name, value in figures.items()}


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
