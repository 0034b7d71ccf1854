"""What a probe is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from findings.finding import AccountFinding, Mark
from findings.reader import AbsentError, AccountReader
from preflight.credentials import Deployer
from stacks.config import EnvironmentConfig

# The mark, what was observed, and what to do unless it is good.
Answer = tuple[Mark, object, str]


def good(observed: object) -> Answer:
    """Nothing to do."""
    return Mark.GOOD, observed, ""


def warning(observed: object, remedy: str) -> Answer:
    """A deployment may work, and somebody should look."""
    return Mark.WARNING, observed, remedy


def bad(observed: object, remedy: str) -> Answer:
    """A deployment would fail."""
    return Mark.BAD, observed, remedy


@dataclass
class Subject:
    """The environment that would be deployed, by whom and where, and the account's answers."""

    name: str
    environment: EnvironmentConfig
    deployer: Deployer
    reader: AccountReader

    def ask(self, service: str, operation: str, **parameters: Any) -> Any:
        """The answer of AWS, with all its pages; see `AccountReader.ask` for what it raises."""
        return self.reader.ask(service, operation, **parameters)

    @property
    def foundation(self) -> str:
        """The name of the stack of what one would miss."""
        return f"MlflowOnAws-{self.name}-Foundation"

    @property
    def service(self) -> str:
        """The name of the disposable stack."""
        return f"MlflowOnAws-{self.name}-Service"

    def stack_status(self, name: str) -> str | None:
        """The status of a stack, or None without one."""
        try:
            return str(
                self.ask("cloudformation", "describe_stacks", StackName=name)["Stacks"][0]["StackStatus"]
            )
        except AbsentError:
            return None

    @cached_property
    def is_deployed(self) -> bool:
        """Whether the foundation exists, so that its network and roles are already counted."""
        return self.stack_status(self.foundation) is not None


@dataclass(frozen=True)
class Probe:
    """One look: its title, and how to answer it."""

    title: str
    look: Callable[[Subject], Answer | None]


def finding(probe: Probe, answer: Answer) -> AccountFinding:
    """The answer as a line of the table."""
    mark, observed, remedy = answer
    return AccountFinding(probe.title, mark, observed, remedy)
