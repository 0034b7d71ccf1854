"""What checking a deployment takes."""

import json
from pathlib import Path

from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.acknowledge import acknowledge_resource

# The same file that `python -m verify_account --policy` prints.
_POLICY = Path(__file__).with_name("verifier.json")


class Verifier(Construct):
    """A policy for whoever runs `make verify`: it reads the settings of resources, and no data in them."""

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        document = iam.PolicyDocument.from_json(json.loads(_POLICY.read_text()))
        self.policy = iam.ManagedPolicy(self, "Policy", document=document)
        acknowledge_resource(
            self.policy,
            "*",
            because="most of these have no resource to name; each reads settings, none reads data",
        )
