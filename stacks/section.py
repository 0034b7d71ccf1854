"""What every table of config/*.toml has in common, and how a wrong value is refused."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from ipaddress import IPv4Network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """One table of the file: frozen, strictly typed, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def refusal(key: str, value: object, reason: str, remedy: str) -> PydanticCustomError:
    """Return the error of a rule that spans settings, shaped like the error of a single one."""
    template = "{reason}"
    return PydanticCustomError(
        "refused", template, {"key": key, "value": value, "reason": reason, "remedy": remedy}
    )


def require_both(section: Section, one: str, other: str) -> None:
    """Raise the refusal of a setting that stands without the one that belongs to it."""
    missing = [key for key in (one, other) if getattr(section, key) is None]
    if len(missing) == 1:
        raise refusal(
            missing[0], None, f"is missing; {one} and {other} belong together", "set both, or neither"
        )


def matching(pattern: str, reason: str, remedy: str) -> AfterValidator:
    """Return the check that a whole text matches the pattern; the words are for who wrote the text."""
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"{reason}; {remedy}")
        return value

    return AfterValidator(check)


SecretName = Annotated[
    str,
    matching(r"[\w/+=.@-]{1,512}", "is not a secret's name", "use letters, digits and / _ + = . @ - only"),
]


def texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in the values of a table, each with its key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from texts(each, f"{key}.{name}" if key else name)
    elif isinstance(value, (list, tuple)):
        found = [found for each in value for found in texts(each, key)]
        yield from dict.fromkeys(found)


def _distinct(values: tuple[Hashable, ...]) -> tuple[Hashable, ...]:
    twice = next((each for number, each in enumerate(values) if each in values[:number]), None)
    if twice is not None:
        raise ValueError(f"lists {twice} twice; remove one of the two")
    return values


DISTINCT = AfterValidator(_distinct)


def _cidr(value: str) -> str:
    try:
        IPv4Network(value)
    except ValueError as error:
        raise ValueError(
            "is not an IPv4 network; write its first address and a length, such as 10.0.0.0/16"
        ) from error
    if "/" not in value:
        raise ValueError(f"has no length; for this one address write {value}/32")
    return value


Cidr = Annotated[str, AfterValidator(_cidr)]
