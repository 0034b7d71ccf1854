"""What the emulator cannot create is removed from a template, with all that needs it, and listed."""

from __future__ import annotations

from typing import Any

from local.leave_out import LeftOut, leave_out, references

SUPPORTED = {"AWS::EC2::VPC", "AWS::EC2::Route", "AWS::ECS::Service"}


def template(**resources: dict[str, Any]) -> dict[str, Any]:
    return {"Resources": resources}


def test_a_template_that_the_emulator_supports_stays_as_it_is() -> None:
    whole = template(Vpc={"Type": "AWS::EC2::VPC", "DependsOn": ["Other"]}, Other={"Type": "AWS::EC2::VPC"})
    assert leave_out(whole, SUPPORTED) == (whole, [])


def test_an_unsupported_type_is_left_out_and_named() -> None:
    kept, gone = leave_out(template(Nat={"Type": "AWS::EC2::NatGateway"}), SUPPORTED)
    assert kept["Resources"] == {}
    assert gone == [LeftOut("AWS::EC2::NatGateway", "Nat", "the emulator has no such type")]


def test_what_needs_a_left_out_resource_goes_too_even_indirectly() -> None:
    whole = template(
        Ip={"Type": "AWS::EC2::EIP"},
        Route={"Type": "AWS::EC2::Route", "Properties": {"A": [{"Fn::GetAtt": ["Ip", "AllocationId"]}]}},
        Last={"Type": "AWS::ECS::Service", "Properties": {"B": {"Fn::Sub": "x-${Route}"}}},
        Vpc={"Type": "AWS::EC2::VPC"},
    )
    kept, gone = leave_out(whole, SUPPORTED)
    assert set(kept["Resources"]) == {"Vpc"}
    assert {each.logical_id: each.because for each in gone if each.logical_id != "Ip"} == {
        "Route": "it needs Ip",
        "Last": "it needs Route",
    }


def test_a_resource_that_only_depends_on_a_left_out_one_stays() -> None:
    whole = template(
        Ip={"Type": "AWS::EC2::EIP"},
        Vpc={"Type": "AWS::EC2::VPC"},
        One={"Type": "AWS::EC2::VPC", "DependsOn": "Ip"},
        Two={"Type": "AWS::EC2::VPC", "DependsOn": ["Vpc", "Ip"]},
    )
    kept, _ = leave_out(whole, SUPPORTED)
    assert "DependsOn" not in kept["Resources"]["One"]
    assert kept["Resources"]["Two"]["DependsOn"] == ["Vpc"]


def test_outputs_of_left_out_resources_and_unused_parameters_go() -> None:
    whole = {
        "Parameters": {"Image": {"Type": "String"}, "Used": {"Type": "String"}},
        "Resources": {
            "Instance": {"Type": "AWS::EC2::Instance", "Properties": {"ImageId": {"Ref": "Image"}}},
            "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": {"Ref": "Used"}}},
        },
        "Outputs": {"Gone": {"Value": {"Ref": "Instance"}}, "Kept": {"Value": {"Ref": "Vpc"}}},
    }
    kept, _ = leave_out(whole, SUPPORTED)
    assert set(kept["Parameters"]) == {"Used"}
    assert set(kept["Outputs"]) == {"Kept"}


def test_the_given_template_is_not_changed() -> None:
    whole = template(Nat={"Type": "AWS::EC2::NatGateway"})
    leave_out(whole, SUPPORTED)
    assert "Nat" in whole["Resources"]


def test_custom_resources_stay_but_for_those_known_to_fail() -> None:
    whole = template(Ours={"Type": "Custom::Migration"}, Theirs={"Type": "Custom::VpcRestrictDefaultSG"})
    kept, gone = leave_out(whole, SUPPORTED)
    assert set(kept["Resources"]) == {"Ours"}
    assert "Node.js" in gone[0].because


def test_references_are_found_in_every_form() -> None:
    value = {
        "a": {"Ref": "One"},
        "b": [{"Fn::GetAtt": ["Two", "Arn"]}, {"Fn::GetAtt": "Three.Arn"}],
        "c": {"Fn::Sub": ["${Four}/${Five.Arn}/${Six}", {"Six": {"Ref": "Seven"}}]},
    }
    assert set(references(value)) >= {"One", "Two", "Three", "Four", "Five", "Seven"}
