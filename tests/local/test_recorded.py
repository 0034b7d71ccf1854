"""What the emulator only records is told, type by type."""

from __future__ import annotations

from typing import Any

from local.recorded import only_recorded, told


def template(*types: str) -> dict[str, Any]:
    return {"Resources": {f"Resource{number}": {"Type": each} for number, each in enumerate(types)}}


def test_types_that_the_emulator_creates_are_not_told() -> None:
    assert only_recorded(template("AWS::EC2::VPC", "Custom::MlflowMigration"), {"AWS::EC2::VPC"}) == []


def test_a_type_that_it_does_not_know_is_told_once_with_its_number() -> None:
    types = only_recorded(
        template("AWS::EC2::FlowLog", "AWS::EC2::VPC", "AWS::EC2::FlowLog"), {"AWS::EC2::VPC"}
    )
    assert told(types) == ["AWS::EC2::FlowLog x 2: the emulator has no such type"]


def test_a_function_that_cannot_run_there_is_told_with_the_reason() -> None:
    (line,) = told(only_recorded(template("Custom::VpcRestrictDefaultSG"), set()))
    assert line.startswith("Custom::VpcRestrictDefaultSG: its function needs")
