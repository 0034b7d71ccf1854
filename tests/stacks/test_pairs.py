"""Settings that meet in one template: every pair of their values is synthesized somewhere."""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

import pytest
from pydantic import ValidationError

from stacks.config import EnvironmentConfig
from tests.stacks.conftest import (
    BREAK_GLASS,
    CERTIFICATE,
    EXISTING_VPC,
    GITHUB_PROVIDER,
    OBJECT_LOCK,
    REPLICA,
    merged,
    read_config,
)
from tests.stacks.templates import Assembly
from tests.stacks.test_every_setting import (
    CLUSTER,
    ISSUER,
    KEY,
    OWN_ISSUER,
    SECRET,
    SIGN_IN_CERTIFICATE,
)

Row = dict[str, str]

DEV = read_config("dev")
NO_PUBLIC = {key: value for key, value in EXISTING_VPC.items() if key != "public_subnet_ids"}
NO_ZONE = {"hosted_zone_id": None, "hosted_zone_name": None}
GITHUB = {"name": "train", "role": "contributor", "repository": "company/models", "branch": "main"}
EKS = {"name": "pod", "role": "viewer", "namespace": "ml", "service_account": "train", "cluster_arn": CLUSTER}

# The first value of each is what config/dev.toml has.
AXES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "network": {
        "NAT instance": {},
        "NAT gateways": {"network": {"nat": "gateway", "nat_count": 2}},
        "transit gateway": {"network": {"transit_gateway_id": "tgw-1", "routed_cidrs": ["10.0.0.0/16"]}},
        "peering": {"network": {"peering_connection_id": "pcx-1", "routed_cidrs": ["10.0.0.0/16"]}},
        "existing": {"network": {"existing": EXISTING_VPC}},
        "existing, no public subnets": {"network": {"existing": NO_PUBLIC}},
    },
    "reach": {
        "internal": {},
        "office": {"ingress": {"internet_facing": True, "allowed_cidrs": ["198.51.100.0/24"]}},
        "internet": {"ingress": {"internet_facing": True, "allowed_cidrs": ["0.0.0.0/0"]}},
    },
    "names": {
        "zone": {},
        "certificate and zone": {"ingress": {"certificate_arn": CERTIFICATE}},
        "certificate": {"ingress": {"certificate_arn": CERTIFICATE, **NO_ZONE}},
    },
    "database": {
        "instance": {},
        "two zones": {"database": {"multi_az": True, "insights": "off", "monitoring_seconds": 0}},
        "Aurora": {
            "database": {
                "engine": "aurora",
                "instance_class": "r7g.large",
                "multi_az": None,
                "readers": 1,
                "deletion_protection": False,
            }
        },
        "Aurora Serverless": {
            "database": {
                "engine": "aurora",
                "instance_class": "serverless",
                "multi_az": None,
                "max_acu": 4,
                "insights": "advanced",
            }
        },
    },
    "image": {
        "CodeBuild": {},
        "local": {"server": {"build": "local", "architecture": "x86_64"}},
        "ECR": {"server": {"image_uri": "210987654321.dkr.ecr.eu-central-1.amazonaws.com/mlflow:1"}},
        "registry": {"server": {"image_uri": "registry.company.org/mlflow:1", "registry_secret_arn": SECRET}},
    },
    "keys": {
        "made": {},
        "own": {
            "log_key_arn": f"{KEY}1",
            "database": {"key_arn": f"{KEY}2"},
            "artifacts": {"key_arn": f"{KEY}3"},
        },
    },
    "boundary": {
        "none": {},
        "name": {"permissions_boundary": "Limits"},
        "ARN": {"permissions_boundary": "arn:aws:iam::111122223333:policy/Limits"},
    },
    "place": {"of the credentials": {}, "given": {"account": "111122223333", "region": "eu-central-1"}},
    "edge": {"checks tokens": {}, "passes tokens": {"identity": {"edge_jwt_check": False}}},
    "issuers": {
        "made": {},
        "given": {"identity": {"token_issuer": OWN_ISSUER}},
        "several": {
            "account": "111122223333",
            "identity": {"trusted_issuers": [{"account": "333344445555", "issuer": ISSUER}]},
        },
    },
    "sign-in": {
        "Cognito's host": {},
        "own host": {
            "identity": {
                "sign_in_domain": "login.dev.example.com",
                "sign_in_certificate_arn": SIGN_IN_CERTIFICATE,
            }
        },
    },
    "people": {
        "invited": {},
        "nobody": {"identity": {"roles": {"admin": None}}},
        "of providers": {
            "identity": {
                "plan": "essentials",
                "mfa": "required",
                "saml": {"name": "Company", "metadata_url": "https://idp", "everyone": "viewer"},
                "oidc": {
                    "name": "Partner",
                    "issuer": "https://idp",
                    "client_id": "a",
                    "client_secret_name": "b",
                },
            }
        },
    },
    "programs": {
        "none": {},
        "GitHub": {"identity": {"github": [GITHUB]}},
        "GitHub and EKS": {
            "identity": {"github": [GITHUB], "eks": [EKS], "github_provider_arn": GITHUB_PROVIDER}
        },
    },
    "artifacts": {
        "plain": {},
        "prefix": {"artifacts": {"prefix": "team/models", "break_glass_role_arn": BREAK_GLASS}},
        "locked and copied": {
            "artifacts": {"seal_at": "promotion", "object_lock": OBJECT_LOCK, "sealed_replica": REPLICA}
        },
    },
}
# What the schema refuses, each for a reason that it states.
REFUSED = {
    ("network: existing, no public subnets", "reach: office"),
    ("network: existing, no public subnets", "reach: internet"),
    ("reach: internet", "edge: passes tokens"),
}


def changes(row: Row) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for axis, value in row.items():
        result = _over(result, AXES[axis][value])
    return result


def _over(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """As `merged`, but None stays: it removes a key of the file later."""
    result = dict(base)
    for key, value in more.items():
        inner = result.get(key)
        result[key] = _over(inner or {}, value) if isinstance(value, Mapping) else value
    return result


def valid(row: Row) -> bool:
    try:
        EnvironmentConfig.model_validate(merged(DEV, changes(row)))
    except ValidationError:
        return False
    return True


def label(axis: str, value: str) -> str:
    return f"{axis}: {value}"


def pairs_of(row: Row) -> set[tuple[str, str]]:
    return set(combinations([label(*each) for each in row.items()], 2))


def all_pairs() -> tuple[list[Row], set[tuple[str, str]]]:
    """Rows in which every pair of values stands, chosen greedily, and the pairs that no row may have."""
    default = {axis: next(iter(values)) for axis, values in AXES.items()}
    wanted = [
        ((one, value), (other, more))
        for one, other in combinations(AXES, 2)
        for value in AXES[one]
        for more in AXES[other]
    ]
    left = {(label(*one), label(*other)) for one, other in wanted}
    rows: list[Row] = []
    refused = set()
    for pair in wanted:
        names = (label(*pair[0]), label(*pair[1]))
        if names not in left:
            continue
        row = dict(pair)
        if not valid({**default, **row}):
            refused.add(names)
            left.discard(names)
            continue
        for axis in (each for each in AXES if each not in row):
            gains = {
                value: len(left & pairs_of(in_order({**row, axis: value})))
                for value in AXES[axis]
                if valid({**default, **row, axis: value})
            }
            row[axis] = max(gains, key=lambda value: gains[value])
        rows.append(in_order(row))
        left -= pairs_of(rows[-1])
    return rows, refused


def in_order(row: Row) -> Row:
    return {axis: row[axis] for axis in AXES if axis in row}


def named(rows: list[Row]) -> Iterator[Any]:
    for number, row in enumerate(rows):
        unusual = [value for axis, value in row.items() if value != next(iter(AXES[axis]))]
        yield pytest.param(row, id=f"{number}: {', '.join(unusual)}")


ROWS, NEVER = all_pairs()


def test_no_pair_is_left_out_but_those_that_the_schema_refuses() -> None:
    assert NEVER == REFUSED
    assert len(ROWS) < 40


@pytest.mark.slow
@pytest.mark.parametrize("row", list(named(ROWS)))
def test_every_pair_of_settings_synthesizes_without_a_finding(
    row: Row, build: Callable[..., Assembly]
) -> None:
    assembly = build("dev", changes(row))
    assert assembly.findings == ()
    assert [each for each in assembly.warnings if "mlflow-on-aws" not in each] == []
