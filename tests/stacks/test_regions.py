"""A region that is none, or that what the file names does not fit to, is refused before anything is made."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from stacks.config import EnvironmentConfig
from tests.stacks.conftest import CERTIFICATE, EXISTING_VPC, merged, read_config

GOVCLOUD_ROLE = "arn:aws-us-gov:iam::111122223333:role/team"


def parse(region: str, changes: Mapping[str, Any] | None = None) -> EnvironmentConfig:
    base = merged(read_config("dev"), {"region": region, "identity": {"roles": None}})
    return EnvironmentConfig.model_validate(merged(base, changes or {}))


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "ap-southeast-2", "us-gov-west-1"])
def test_a_region_with_everything_is_accepted(region: str) -> None:
    assert parse(region).region == region


@pytest.mark.parametrize(
    ("region", "meant"),
    [("us-esat-1", "us-east-1"), ("eu-central1", "eu-central-1"), ("US-EAST-1 ", None), ("frankfurt", None)],
)
def test_a_word_that_is_no_region_is_refused_with_the_nearest(region: str, meant: str | None) -> None:
    with pytest.raises(ValidationError, match=f"did you mean {meant}" if meant else "write its code"):
        parse(region)


@pytest.mark.parametrize("region", ["cn-north-1", "cn-northwest-1", "us-iso-east-1"])
def test_a_region_in_which_nobody_could_sign_in_is_refused(region: str) -> None:
    with pytest.raises(ValidationError, match="Cognito has no user pools"):
        parse(region)


@pytest.mark.parametrize(
    ("region", "changes", "reason"),
    [
        (
            "us-gov-west-1",
            {"identity": {"roles": {"viewer": {"iam_roles": ["arn:aws:iam::111122223333:role/team"]}}}},
            "is in another partition",
        ),
        (
            "eu-central-1",
            {"artifacts": {"break_glass_role_arn": GOVCLOUD_ROLE}},
            "is in another partition",
        ),
        ("us-east-1", {"ingress": {"certificate_arn": CERTIFICATE}}, "is in another region"),
        (
            "us-gov-west-1",
            {
                "identity": {
                    "sign_in_domain": "login.example.com",
                    "sign_in_certificate_arn": CERTIFICATE.replace("eu-central-1", "us-east-1"),
                }
            },
            "has no domains of one's own in GovCloud",
        ),
        ("us-east-1", {"network": {"zone_names": ["us-east-1a", "us-west-1b"]}}, "is not in region"),
        ("us-east-1", {"network": {"existing": EXISTING_VPC}}, "is not in region"),
    ],
)
def test_what_is_elsewhere_is_refused(region: str, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        parse(region, changes)


def test_what_is_in_the_region_is_accepted() -> None:
    assert parse(
        "eu-central-1",
        {"network": {"existing": EXISTING_VPC}, "ingress": {"certificate_arn": CERTIFICATE}},
    )
    assert parse("us-gov-east-1", {"artifacts": {"break_glass_role_arn": GOVCLOUD_ROLE}})
