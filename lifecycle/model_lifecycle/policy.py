"""The policy file: what a model must show, and who may decide, before it moves to another stage."""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_lifecycle.errors import PolicyError

Stage = Literal["None", "Staging", "Production", "Archived"]
ServerRole = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
_PRINCIPAL = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/\S+|cognito:\S+")

Finite = Annotated[float, Field(allow_inf_nan=False)]
Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Metric(_Table):
    """One figure of the training run that must be good enough, and not worse than what is live."""

    name: str = Field(min_length=1, description="the metric's name in the run")
    direction: Literal["higher", "lower"] = Field(description="which is better")
    minimum: Finite | None = Field(default=None, description="the least value; for direction = higher")
    maximum: Finite | None = Field(default=None, description="the greatest value; for direction = lower")
    no_worse_than_current_by: Tolerance | None = Field(
        default=None,
        description="how much worse than the version that holds the stage it may be; 0: not at all",
    )

    @model_validator(mode="after")
    def _asks_for_something_sensible(self) -> Self:
        if self.direction == "higher" and self.maximum is not None:
            raise ValueError('direction is "higher", so the bound is called minimum: rename maximum')
        if self.direction == "lower" and self.minimum is not None:
            raise ValueError('direction is "lower", so the bound is called maximum: rename minimum')
        if self.minimum is None and self.maximum is None and self.no_worse_than_current_by is None:
            raise ValueError("asks for nothing: give a bound, no_worse_than_current_by, or both")
        return self


class Approvers(_Table):
    """Who may decide, among those whom the server lets; empty means: whomever the server lets."""

    principals: tuple[str, ...] = Field(
        default=(), description='verified names, "arn:aws:iam::123456789012:role/team/*" or "cognito:name"'
    )
    roles: tuple[ServerRole, ...] = Field(
        default=(), description="the deployment's roles, as the server gives them"
    )
    other_than_trainer: bool = Field(
        default=False, description="four eyes: not whoever trained or registered it"
    )

    @model_validator(mode="after")
    def _names_are_whole(self) -> Self:
        for principal in self.principals:
            account = principal.partition(":role/")[0]
            if not _PRINCIPAL.fullmatch(principal) or "*" in account:
                raise ValueError(
                    f'principals: "{principal}" is neither a full role ARN (a * only after ":role/") '
                    'nor "cognito:name"; write for example "arn:aws:iam::123456789012:role/ml/approver-*"'
                )
        return self


class Transition(_Table):
    """What one move demands."""

    from_stages: tuple[Stage, ...] = Field(default=(), alias="from", description="stages it may come from")
    metrics: tuple[Metric, ...] = Field(default=(), description="figures that must hold")
    evidence: tuple[str, ...] = Field(default=(), description="artifacts that the run must have; * matches")
    same_dataset: bool = Field(
        default=False, description="figures are compared only between runs with the same evaluation data"
    )
    manifest: bool = Field(
        default=True, description="the version must be sealed, and its files in S3 as they were sealed"
    )
    approvers: Approvers = Field(default=Approvers(), description="who may decide")

    @model_validator(mode="after")
    def _names_each_metric_once(self) -> Self:
        names = [metric.name for metric in self.metrics]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"metrics: {', '.join(sorted(twice))} stands there twice: keep one")
        return self


class Archival(Transition):
    """What archiving demands."""

    live: bool = Field(default=False, description="a version that is in Production may be archived")


class Transitions(_Table):
    """One table for each move. `rollback` and `archived` may be left out."""

    staging: Transition | None = None
    production: Transition | None = None
    rollback: Transition = Transition()
    archived: Archival = Archival(manifest=False)


class Aliases(_Table):
    """The aliases that are kept in step with the stages."""

    staging: str = "challenger"
    production: str = "champion"


class Policy(_Table):
    """A whole policy file."""

    version: int = Field(ge=1, description="yours to raise with every change")
    models: tuple[str, ...] = Field(default=("*",), min_length=1, description="names it is for; * matches")
    aliases: Aliases = Aliases()
    transitions: Transitions


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy, where it came from, and the SHA-256 of the file's bytes (what `sha256sum FILE` prints)."""

    policy: Policy
    file: str
    sha256: str

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file.

        Raises:
            PolicyError: it cannot be read or does not fit the schema; all faults are named at once.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise PolicyError(f"{path}: cannot be read ({error.strerror}); name a policy file") from error
        try:
            raw = tomllib.loads(content.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PolicyError(f"{path}: is not TOML: {error}") from error
        return cls(parse(raw, where=str(path)), _recorded(path), hashlib.sha256(content).hexdigest())

    def transition(self, target: Literal["staging", "production"], *, model: str) -> Transition:
        """What a move to this stage demands.

        Raises:
            PolicyError: the policy is not for this model, or says nothing about this move.
        """
        self.require_model(model)
        found = getattr(self.policy.transitions, target)
        if found is None:
            raise PolicyError(
                f"{self.file}: has no [transitions.{target}], so nothing may move there; add it"
            )
        default = {"staging": ("None",), "production": ("Staging",)}[target]
        assert isinstance(found, Transition)  # noqa: S101 - for the type checker
        return found if found.from_stages else found.model_copy(update={"from_stages": default})

    def require_model(self, model: str) -> None:
        """Raise `PolicyError` unless the policy is for this model."""
        if not any(fnmatchcase(model, pattern) for pattern in self.policy.models):
            raise PolicyError(
                f'{self.file}: models: {list(self.policy.models)} does not match "{model}"; '
                "name the policy of this model, or add it there"
            )


def parse(raw: dict[str, Any], *, where: str) -> Policy:
    """Fit a parsed file to the schema.

    Raises:
        PolicyError: names file, key, value and remedy of every fault.
    """
    try:
        return Policy.model_validate(raw)
    except ValidationError as error:
        faults = "\n".join(f"{where}: {_said(each)}" for each in error.errors())
        raise PolicyError(faults) from error


def _recorded(path: Path) -> str:
    """A name for the file that means something elsewhere too: relative, or else without its directory."""
    here = Path.cwd()
    whole = path.resolve()
    return whole.relative_to(here).as_posix() if whole.is_relative_to(here) else path.name


def matches(pattern: str, name: str) -> bool:
    """Whether a principal's verified name fits a pattern of the policy, in which only `*` is special."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def _said(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"]) or "the file"
    value = fault["input"]
    if fault["type"] == "missing":
        return f"{key}: is missing; add it"
    if fault["type"] == "extra_forbidden":
        return (
            f"{key}: there is no such key; correct its name or remove it (docs/lifecycle.md lists the keys)"
        )
    message = fault["msg"].removeprefix("Value error, ")
    if isinstance(value, dict):
        return f"{key}: {message}"
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        message = "must be a number"
    return f"{key}: {shown}: {message[:1].lower()}{message[1:]}"
