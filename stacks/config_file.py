"""Reads an environment's file, and says in plain words what is wrong with it."""

from __future__ import annotations

import difflib
import re
import sys
import tomllib
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from stacks.config import EnvironmentConfig

CONFIG = Path(__file__).parents[1] / "config"
ENVIRONMENT_NAME = re.compile(r"^[a-z][a-z0-9-]{0,19}$")


class ConfigurationError(Exception):
    """What is wrong with the configuration: the file, and for each finding its key, value and remedy."""


def load_environment(*, name: str | None, path: str | None, directory: Path) -> EnvironmentConfig:
    """Read the environment called `name` from `directory`, or from the file at `path` instead.

    Raises ConfigurationError, whose text is complete, if there is no such file or it is not valid.
    """
    file = _file(name=name, path=path, directory=directory)
    try:
        with file.open("rb") as stream:
            values = tomllib.load(stream)
    except OSError as error:
        raise ConfigurationError(
            f"{file}: cannot be read: {error.strerror}\n  remedy: name a readable file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f'{file}: is not valid TOML: {error}\n  remedy: correct that line; text goes in "quotes"'
        ) from error
    try:
        return EnvironmentConfig.model_validate(values)
    except ValidationError as error:
        findings = "\n".join(_finding(details) for details in error.errors(include_url=False))
        raise ConfigurationError(f"{file}: is not a valid configuration\n{findings}") from error


def _file(*, name: str | None, path: str | None, directory: Path) -> Path:
    known = sorted(file.stem for file in directory.glob("*.toml"))
    choice = " or ".join(f"-c env={each}" for each in known)
    if not name:
        raise ConfigurationError(f"no environment is chosen\n  remedy: add {choice}")
    if not ENVIRONMENT_NAME.match(name):
        raise ConfigurationError(
            f"env = {name!r}: is not a valid environment name\n"
            "  remedy: use up to 20 lower-case letters, digits and hyphens, starting with a letter"
        )
    if path:
        return Path(path)
    if name not in known:
        raise ConfigurationError(
            f"env = {name!r}: there is no {directory / name}.toml\n  remedy: use {choice}, or write that file"
        )
    return directory / f"{name}.toml"


def _finding(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    location = [str(part) for part in details["loc"]]
    if details["type"] == "refused":
        key = ".".join([*location, context["key"]])
        return _lines(key, context["value"], context["reason"], context["remedy"])
    key = ".".join(location)
    if details["type"] == "extra_forbidden":
        return _lines(key, details["input"], "is not a setting", _nearest(location))
    expected = f"expected: {_description(location)}"
    if details["type"] == "missing":
        return _lines(key, None, "is missing", f"add it; {expected}")
    reason = details["msg"].removeprefix("Value error, ")
    return _lines(key, details["input"], reason[0].lower() + reason[1:], f"correct it; {expected}")


def _lines(key: str, value: object, reason: str, remedy: str) -> str:
    shown = "" if value is None else f" = {_toml(value)}"
    return f"  {key}{shown}: {reason}\n    remedy: {remedy}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _model(location: list[str]) -> type[BaseModel] | None:
    """Return the section that a path of keys leads to."""
    model: type[BaseModel] | None = EnvironmentConfig
    for key in (each for each in location if not each.isdigit()):  # a digit counts in an array of tables
        field = model.model_fields.get(key) if model else None
        model = _section_of(field) if field else None
    return model


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a setting is, or holds in an array; None if it is a plain value."""
    options = [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((each for each in options if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _description(location: list[str]) -> str:
    for end in range(len(location), 0, -1):
        model = _model(location[: end - 1])
        if model and (field := model.model_fields.get(location[end - 1])):
            return field.description or ""
    return "see docs/configuration.md"


def _nearest(location: list[str]) -> str:
    model = _model(location[:-1])
    settings = list(model.model_fields) if model else []
    close = difflib.get_close_matches(location[-1], settings, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"remove it; settings here are {', '.join(settings)}"


if __name__ == "__main__":
    try:
        load_environment(name=sys.argv[1], path=None, directory=CONFIG)
    except ConfigurationError as wrong:
        sys.exit(f"configuration error: {wrong}")
