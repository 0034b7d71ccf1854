"""What the stacks need of the account before they are deployed."""

from __future__ import annotations

from preflight.deployment import BOOTSTRAP_VERSION
from tests.stacks.templates import Assembly


def test_preflight_asks_for_the_bootstrap_version_that_the_stacks_need(either: Assembly) -> None:
    needed = [
        artifact["properties"]["requiresBootstrapStackVersion"]
        for artifact in either.manifest["artifacts"].values()
        if "requiresBootstrapStackVersion" in artifact.get("properties", {})
    ]
    assert max(needed) == BOOTSTRAP_VERSION
