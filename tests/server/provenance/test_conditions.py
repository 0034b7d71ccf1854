"""What `If-Match` and `If-None-Match` ask for."""

from __future__ import annotations

import pytest
from mlflow_aws_server.provenance.conditions import conditions_of
from mlflow_aws_server.provenance.errors import ProvenanceError


def _check(headers: dict[str, str], current: str | None) -> int:
    try:
        conditions_of({"headers": [(k.encode(), v.encode()) for k, v in headers.items()]}).check(
            current, place="It"
        )
    except ProvenanceError as refused:
        return refused.status
    return 200


@pytest.mark.parametrize(
    ("headers", "current", "status"),
    [
        ({}, None, 200),
        ({}, "3", 200),
        ({"if-match": '"3"'}, "3", 200),
        ({"if-match": '"3"'}, "4", 412),
        ({"if-match": '"3"'}, None, 412),
        ({"if-match": '"3"'}, "33", 412),
        ({"if-match": '"3", "4"'}, "4", 200),
        ({"if-match": "*"}, "4", 200),
        ({"if-match": "*"}, None, 412),
        ({"if-none-match": "*"}, None, 200),
        ({"if-none-match": "*"}, "1", 412),
        ({"if-none-match": '"1"'}, "1", 412),
        ({"if-none-match": '"1"'}, "2", 200),
        ({"if-match": '"2"', "if-none-match": "*"}, "2", 412),
    ],
)
def test_condition(headers: dict[str, str], current: str | None, status: int) -> None:
    assert _check(headers, current) == status


@pytest.mark.parametrize("text", ["", "3", '"3', 'W/"3"', '"three"', '"3" "4"', '"3",', '*, "3"', '"³"'])
@pytest.mark.parametrize("name", ["if-match", "if-none-match"])
def test_condition_that_cannot_be_read_is_not_ignored(name: str, text: str) -> None:
    assert _check({name: text}, "3") == 400


def test_several_headers_are_one_list() -> None:
    conditions = conditions_of({"headers": [(b"if-match", b'"1"'), (b"if-match", b'"2"')]})
    conditions.check("2", place="It")
    with pytest.raises(ProvenanceError, match="held by version 3, but If-Match asks for version 1 or 2"):
        conditions.check("3", place="It")
