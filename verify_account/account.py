"""What a check is given: the account's answers, the outputs, and what the stacks describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from findings.reader import AbsentError, AccountReader, Clients, NotAskedError
from verify_account.templates import Resource, described

# Of the service stack, by name.
Outputs = Mapping[str, str]


@dataclass(frozen=True)
class Check:
    """One property: its title, how to see whether it holds and what was observed, and what to do if not."""

    title: str
    look: Callable[[Account], tuple[bool, object]]
    remedy: str


@dataclass
class Account:
    """A deployment in its account, read-only."""

    clients: Clients
    outputs: Outputs
    reader: AccountReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = AccountReader(self.clients)

    def ask(self, service: str, operation: str, **parameters: Any) -> Any:
        """The answer of AWS, with all its pages; see `AccountReader.ask` for what it raises."""
        return self.reader.ask(service, operation, **parameters)

    def error_of(self, service: str, operation: str, **parameters: Any) -> str:
        """The code of AWS's error, or nothing if there is an answer."""
        try:
            self.ask(service, operation, **parameters)
        except AbsentError as error:
            return error.code
        return ""

    @cached_property
    def resources(self) -> list[Resource]:
        """What both stacks describe, with every reference that can be resolved."""
        return described(self.ask, [self.outputs["FoundationStack"], self.outputs["ServiceStack"]])

    def of_type(self, *types: str) -> list[Resource]:
        """The stacks' resources of these types."""
        return [each for each in self.resources if each.type in types]

    def only(self, *types: str) -> Resource:
        """The stacks' only resource of these types.

        Raises:
            NotAskedError: the stacks have none.
        """
        found = self.of_type(*types)
        if not found:
            raise NotAskedError(f"the stacks have no {' or '.join(types)}")
        return found[0]


def listed(value: Any) -> list[Any]:
    """The elements of a policy's field, which may stand there alone."""
    return value if isinstance(value, list) else [value]
