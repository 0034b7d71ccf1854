"""The schema refuses what would fail, cost or expose later, and says what to do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stacks.config import EnvironmentConfig, instance_memory_gib
from tests.stacks.conftest import AURORA, EXISTING_VPC, merged, read_config

SERVERLESS = {"instance_class": "serverless"}


def parse(changes: Mapping[str, Any], name: str = "dev") -> EnvironmentConfig:
    return EnvironmentConfig.model_validate(merged(read_config(name), changes))


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_files_in_config_are_valid(name: str) -> None:
    assert parse({}, name)


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        parse({}).database.port = 1


@pytest.mark.parametrize(
    ("instance_class", "gib"),
    [("t4g.micro", 1), ("t3.2xlarge", 32), ("m7g.large", 8), ("m7g.xlarge", 16), ("r8g.2xlarge", 64)],
)
def test_memory_of_an_instance_class_is_known(instance_class: str, gib: int) -> None:
    assert instance_memory_gib(instance_class) == gib


@pytest.mark.parametrize(
    "instance_class", ["db.t4g.micro", "t4g.nano", "t4g.8xlarge", "m7g.medium", "x2g.large"]
)
def test_an_instance_class_that_does_not_exist_is_refused(instance_class: str) -> None:
    with pytest.raises(ValueError, match=r"is not a class|does not exist"):
        instance_memory_gib(instance_class)


def test_the_database_carries_a_rollout_at_full_scale() -> None:
    config = parse({}, "prod")
    assert (
        2 * config.server.max_tasks * config.server.database_connections + 15
        <= config.database.max_connections
    )


def test_one_connection_too_many_is_refused() -> None:
    most = (100 - 15) // (2 * 2)
    assert parse({"server": {"database_connections": most}})
    with pytest.raises(ValidationError, match="can overload the database"):
        parse({"server": {"database_connections": most + 1}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multi_az": True}, "has no effect with engine"),
        ({"multi_az": False}, "has no effect with engine"),
        ({"storage_gib": 20}, "has no effect with engine"),
        ({"max_storage_gib": 100}, "has no effect with engine"),
        ({"min_acu": 1.0}, "has no effect with instance_class"),
        ({"max_acu": 8}, "has no effect with instance_class"),
        ({"instance_class": "m7g.large"}, "is not a class that Aurora offers"),
        ({"instance_class": "t4g.micro"}, "is not a class that Aurora offers"),
        ({"readers": 16}, "less than or equal to 15"),
        (SERVERLESS, "max_acu|is missing"),
        ({**SERVERLESS, "max_acu": 0.5}, "the least that Aurora allows"),
        ({**SERVERLESS, "min_acu": 4, "max_acu": 2}, "is below min_acu"),
        ({**SERVERLESS, "max_acu": 2.2}, "use 2.0 or 2.5"),
        # The server's own connections keep an idle database awake: it would never pause.
        ({**SERVERLESS, "min_acu": 0, "max_acu": 2}, "greater than or equal to 0.5"),
        ({**SERVERLESS, "max_acu": 2, "max_connections": 401}, "max_acu = 2.0 x 2 GiB x 100"),
        ({**SERVERLESS, "max_acu": 64, "max_connections": 2001}, "limit while min_acu = 0.5"),
    ],
)
def test_a_cluster_s_setting_that_would_fail_or_do_nothing_is_refused(
    changes: Mapping[str, Any], message: str
) -> None:
    assert parse({"database": AURORA}, "prod")
    with pytest.raises(ValidationError, match=message):
        parse({"database": {**AURORA, **changes}}, "prod")


def test_a_serverless_cluster_s_connections_follow_its_largest_capacity() -> None:
    for changes in ({"max_acu": 4, "max_connections": 800}, {"min_acu": 1, "max_acu": 64}):
        assert parse({"database": {**AURORA, **SERVERLESS, **changes}}, "prod").database.serverless


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"readers": 1}, "has no effect with engine"),
        ({"storage_type": "aurora-iopt1"}, "has no effect with engine"),
        ({"max_acu": 8}, "has no effect with engine"),
        ({"instance_class": "serverless"}, "is a class of Aurora"),
        ({"read_replica": True}, "Extra inputs"),
    ],
)
def test_an_instance_has_no_settings_of_a_cluster(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse({"database": changes})


@pytest.mark.parametrize(
    "networks",
    [
        ["0.0.0.0/0"],
        ["0.0.0.0/1", "128.0.0.0/1"],
        ["8.0.0.0/7"],
        [f"{first}.0.0.0/8" for first in range(11, 100, 20)],
        [f"{first}.{second}.0.0/16" for first in (20, 40, 60) for second in range(0, 256, 2)],
    ],
)
def test_networks_that_are_together_as_good_as_the_internet_are_treated_like_it(networks: list[str]) -> None:
    everywhere = {"internet_facing": True, "allowed_cidrs": networks}
    assert parse({"ingress": everywhere}).ingress.open_to_the_internet
    with pytest.raises(ValidationError, match="unchecked token"):
        parse({"ingress": everywhere, "identity": {"edge_jwt_check": False}})
    with pytest.raises(ValidationError, match="internal load balancer"):
        parse({"ingress": {**everywhere, "internet_facing": False}})


@pytest.mark.parametrize(
    "pattern",
    [
        "arn:aws:iam::111122223333:role/team",
        "arn:aws:iam::111122223333:role/path/to/team",
        "arn:aws:iam::111122223333:role/team-*",
        "arn:aws-cn:iam::111122223333:role/*/team",
    ],
)
def test_a_role_s_arn_in_full_is_accepted_with_a_wildcard_in_its_name(pattern: str) -> None:
    config = parse({"identity": {"roles": {"viewer": {"iam_roles": [pattern]}}}})
    assert config.identity.members("viewer").iam_roles == (pattern,)


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "arn:aws:iam::*:role/team",
        "arn:aws:iam::1111:role/team",
        "arn:*:iam::111122223333:role/team",
        "arn:aws:*::111122223333:role/team",
        "arn:aws:iam::111122223333:*",
        "arn:aws:iam::111122223333:r*/team",
        "arn:aws:iam::111122223333:role/",
        "arn:aws:iam::111122223333:role/te?m",
        "arn:aws:iam::111122223333:role/team\n",
        " arn:aws:iam::111122223333:role/team",
        "arn:aws:iam:eu-central-1:111122223333:role/team",
    ],
)
def test_a_pattern_that_could_mean_a_stranger_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match=r"has no account|has no role|is not an IAM role"):
        parse({"identity": {"roles": {"admin": {"iam_roles": [pattern]}}}})


@pytest.mark.parametrize(
    "networks",
    [
        ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"],
        ["10.0.0.0/7"],
        ["9.0.0.0/8", "9.1.0.0/16", "10.0.0.0/8"],
        ["198.51.100.0/24", "203.0.113.7/32"],
    ],
)
def test_networks_of_a_company_are_not_the_internet(networks: list[str]) -> None:
    assert not parse({"ingress": {"allowed_cidrs": networks}}).ingress.open_to_the_internet


def test_an_existing_network_needs_one_subnet_per_zone() -> None:
    assert parse({"network": {"existing": EXISTING_VPC}})
    with pytest.raises(ValidationError, match="has 3 subnets for 2 zones"):
        parse(
            {
                "network": {
                    "existing": {**EXISTING_VPC, "public_subnet_ids": ["subnet-1", "subnet-2", "subnet-3"]}
                }
            }
        )


def test_an_image_is_given_with_tag_or_digest() -> None:
    for uri in ("ghcr.io/team/mlflow:1.2", "localhost:5000/mlflow@sha256:" + "a" * 64):
        assert parse({"server": {"image_uri": uri}}).server.image_uri == uri
    with pytest.raises(ValidationError):
        parse({"server": {"image_uri": "ghcr.io/team/mlflow"}})


def test_every_environment_has_a_file_that_a_reader_takes_in_at_once() -> None:
    for file in Path("config").glob("*.toml"):
        assert len(file.read_text().splitlines()) < 80
