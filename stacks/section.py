"""What every table of config/*.toml has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
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
