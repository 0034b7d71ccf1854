"""A way into the database for the day when everything else has failed."""

from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.foundation.database import Database


class BreakGlass(Construct):
    """A customer-managed policy to sign in to the database as its administrator.

    It is attached to nobody. The administrator signs in with IAM tokens once the first migration has run.
    """

    def __init__(self, scope: Construct, construct_id: str, *, database: Database) -> None:
        super().__init__(scope, construct_id)
        self.policy = iam.ManagedPolicy(self, "Policy")
        database.grant_connect(self.policy, user=database.administrator_user)
