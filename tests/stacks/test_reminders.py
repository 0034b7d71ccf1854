"""Synthesis warns of what a deployer has most likely not done yet."""

from collections.abc import Mapping
from typing import Any

import pytest

from stacks.config import EnvironmentConfig
from stacks.reminders import reminders
from tests.stacks.conftest import EXISTING_VPC, GITHUB_ROLES, merged, read_config
from tests.stacks.templates import Assembly

DONE = {
    "ingress": {
        "domain": "mlflow.company.org",
        "hosted_zone_id": "Z0123456789ABC",
        "hosted_zone_name": "company.org",
        "internet_facing": True,
    },
    "monitoring": {"emails": ["ada@company.org"]},
    "identity": {
        "roles": {
            "admin": {"iam_roles": ["arn:aws:iam::210987654321:role/Deployer"], "people": ["ada@company.org"]}
        }
    },
}
NOBODY: Mapping[str, Any] = {"identity": {"roles": {"admin": None}}}


def reminded(changes: Mapping[str, Any], *, name: str = "dev") -> dict[str, str]:
    config = EnvironmentConfig.model_validate(merged(merged(read_config(name), DONE), changes))
    return dict(reminders(config))


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_every_line_marked_edit_is_a_placeholder_until_it_is_edited(name: str) -> None:
    config = EnvironmentConfig.model_validate(read_config(name))
    left = dict(reminders(config))["placeholders"]
    for key in (
        "ingress.domain",
        "ingress.hosted_zone_id",
        "ingress.hosted_zone_name",
        "identity.roles.admin.iam_roles",
        "identity.roles.admin.people",
        "monitoring.emails",
    ):
        assert key in left
    assert reminded({}, name=name) == {}


@pytest.mark.parametrize(
    ("value", "setting"),
    [
        ("mlflow.example.com", "ingress.domain"),
        ("Z0000000000EXAMPLE", "ingress.hosted_zone_id"),
        (["203.0.113.0/24"], "ingress.allowed_cidrs"),
    ],
)
def test_each_kind_of_placeholder_is_found(value: object, setting: str) -> None:
    key = setting.rsplit(".", 1)[-1]
    changes = {"ingress": {key: value, "hosted_zone_name": None, "hosted_zone_id": None}}
    changes["ingress"].update({"certificate_arn": "arn:aws:acm:eu-west-1:210987654321:certificate/a"})
    if key == "hosted_zone_id":
        changes = {"ingress": {key: value}}
    assert setting in reminded(changes)["placeholders"]


def test_a_file_that_names_nobody_is_warned_about() -> None:
    assert "nobody has a role" in reminded(NOBODY)["nobody-has-a-role"]


@pytest.mark.parametrize(
    "somebody",
    [
        {"roles": {"admin": None, "viewer": {"people": ["ada@company.org"]}}},
        {"roles": {"admin": None, "viewer": {"groups": ["staff"]}}},
        {"roles": {"admin": None}, "github": GITHUB_ROLES},
        {
            "roles": {"admin": None},
            "saml": {"name": "Company", "metadata_url": "https://idp", "everyone": "viewer"},
        },
    ],
)
def test_one_who_has_a_role_is_enough(somebody: Mapping[str, Any]) -> None:
    assert "nobody-has-a-role" not in reminded({"identity": somebody})


def test_a_load_balancer_that_nobody_reaches_is_warned_about() -> None:
    internal = {"ingress": {"internet_facing": False}}
    assert "nobody reaches an internal load balancer" in reminded(internal)["nobody-reaches-it"]
    joined = {"transit_gateway_id": "tgw-1", "routed_cidrs": ["10.0.0.0/16"]}
    for network in (joined, {"existing": EXISTING_VPC}):
        assert "nobody-reaches-it" not in reminded({**internal, "network": network})


def test_synthesis_shows_them(dev: Assembly) -> None:
    assert [each.split(" ", 2)[:2] for each in dev.warnings] == [
        ["placeholders", "are"],
        ["nobody", "reaches"],
    ]


def test_synthesis_warns_when_nobody_is_told_of_alarms() -> None:
    assert "nobody-is-told" in reminded({"monitoring": {"emails": []}})
    pager = {"emails": [], "pager_secret_name": "mlflow/pager"}
    assert "nobody-is-told" not in reminded({"monitoring": pager})
