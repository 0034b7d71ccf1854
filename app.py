#!/usr/bin/env python3
"""Picks an environment (`-c env=NAME`, optionally `-c config=PATH`) and builds its stacks."""

import sys

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from stacks.config_file import CONFIG, ConfigurationError, load_environment
from stacks.foundation.stack import MlflowFoundation
from stacks.recovery.stack import recovery_of
from stacks.service.scratch import MlflowScratch
from stacks.service.stack import MlflowService


def main() -> None:
    """Synthesize the chosen environment; exit with one message if its configuration is wrong."""
    app = cdk.App()
    name, path = app.node.try_get_context("env"), app.node.try_get_context("config")
    try:
        environment = load_environment(name=name, path=path, directory=CONFIG)
    except ConfigurationError as error:
        sys.exit(f"configuration error: {error}")
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    recovery = recovery_of(app, f"MlflowOnAws-{name}-Recovery", environment=environment)
    foundation = MlflowFoundation(
        app, f"MlflowOnAws-{name}-Foundation", environment=environment, recovery=recovery
    )
    MlflowService(app, f"MlflowOnAws-{name}-Service", environment=environment, foundation=foundation)
    if app.node.try_get_context("scratch"):
        MlflowScratch(app, f"MlflowOnAws-{name}-Scratch", environment=environment, foundation=foundation)
    app.synth()


if __name__ == "__main__":
    main()
