"""Reads an environment's file, and says in plain words what is wrong with it, one line for each mistake."""

from __future__ import annotations

import difflib
import json
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from stacks.config import EnvironmentConfig

CONFIG = Path(__file__).parents[1] / "config"
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
ENVIRONMENT_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")


# What a value is not, and what to do: for each kind of mistake that the validation knows.
PLAIN = {
    "string_type": ("is not a text", 'write it in "quotes"'),
    "int_type": ("is not a whole number", "write digits only, without quotes"),
    "float_type": ("is not a number", "write it without quotes, such as 0.5 or 8"),
    "finite_number": ("is not a number", "write it in digits, such as 0.5 or 8"),
    "int_parsing_size": ("is too large", "use a smaller number"),
    "bool_type": ("is not a switch", "write true or false, without quotes"),
    "tuple_type": ("is not an array", 'write it in brackets, such as ["one", "two"]'),
    "dict_type": ("is not a table", 'write it in braces, such as {{name = "value"}}'),
    "model_type": ("is not a table", "write its settings as lines below a heading in brackets"),
    "literal_error": ("is not one of the choices", "use {expected}"),
    "too_short": ("is too short", "list {min_length} or more"),
    "greater_than_equal": ("is too small", "use {ge} or more"),
    "less_than_equal": ("is too large", "use {le} at most"),
}
LONGEST_VALUE = 80
Location = Sequence[str]


class ConfigurationError(Exception):
    """What is wrong with the configuration: the file, and for each finding its key, value and remedy."""


def load_environment(*, name: str | None, path: str | None, directory: Path) -> EnvironmentConfig:
    """Read the environment called `name` from `directory`, or from the file at `path` instead.

    Raises ConfigurationError, whose text is complete, if there is no such file or it is not valid.
    """
    file = _file(name=name, path=path, directory=directory)
    try:
        return _environment(file)
    except RecursionError:
        reason = "tables or brackets stand in one another without end; close them"
        raise ConfigurationError(f"{_shown(file)}: is not valid TOML: {reason}") from None


def _environment(file: Path) -> EnvironmentConfig:
    try:
        return EnvironmentConfig.model_validate(_read(file))
    except ValidationError as error:
        findings = "\n".join(f"  {each}" for each in _findings(error.errors(include_url=False)))
        raise ConfigurationError(f"{_shown(file)}: is not a valid configuration\n{findings}") from error


def _read(file: Path) -> Mapping[str, object]:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise ConfigurationError(
            f"{_shown(file)}: cannot be read: {error.strerror}; name a readable file"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{_shown(file)}: is not text in UTF-8; save it as such") from error
    except ValueError as error:
        reason = "a number has too many digits" if "digits" in str(error) else " ".join(str(error).split())
        raise ConfigurationError(
            f'{_shown(file)}: is not valid TOML: {reason}; correct that line (text goes in "quotes")'
        ) from error


def _shown(file: Path) -> str:
    """Return the path as a person in this directory would write it."""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _file(*, name: str | None, path: str | None, directory: Path) -> Path:
    known = sorted(file.stem for file in directory.glob("*.toml"))
    choice = " or ".join(f"ENV={each}" for each in known)
    same = "(with cdk, -c env=…)"
    if not name:
        raise ConfigurationError(f"no environment is chosen; add {choice} {same}")
    if not ENVIRONMENT_NAME.fullmatch(name):
        raise ConfigurationError(
            f"ENV={_toml(name)} cannot name an environment; "
            "use up to 20 lower-case letters, digits and hyphens, a letter first"
        )
    if path:
        return Path(path)
    if name not in known:
        file = _shown(directory / f"{name}.toml")
        raise ConfigurationError(f"ENV={name} has no file {file}; use {choice} {same}, or write that file")
    return directory / f"{name}.toml"


def _findings(mistakes: Sequence[ErrorDetails]) -> list[str]:
    """One line for each mistake.

    A misspelt key is one: what it was meant for is not missing as well. Nor is an array too short because
    what stands in it is wrong.
    """
    meant = {
        (*_names(each)[:-1], nearest)
        for each in mistakes
        if each["type"] == "extra_forbidden" and (nearest := _nearest(_names(each)))
    }
    holding = {_names(each)[:-1] for each in mistakes}
    follows = {"missing": meant, "too_short": holding}
    return [_finding(each) for each in mistakes if _names(each) not in follows.get(each["type"], ())]


def _names(mistake: ErrorDetails) -> tuple[str, ...]:
    return tuple(str(part) for part in mistake["loc"])


def _finding(mistake: ErrorDetails) -> str:
    context, location, kind = mistake.get("ctx", {}), _names(mistake), mistake["type"]
    if kind == "refused":
        return _line(
            (*location, *context["key"].split(".")), context["value"], context["reason"], context["remedy"]
        )
    if kind == "missing":
        return _line(location, None, "is missing", f"add it: {_description(location)}")
    if kind == "extra_forbidden":
        return _line(location, mistake["input"], "is not a setting", _other_setting(location))
    if kind == "tuple_type" and isinstance(mistake["input"], dict):
        heading = ".".join(location)
        return f"[{heading}]: is one table where several may be; write [[{heading}]], with two brackets"
    if kind == "value_error":
        reason, _, remedy = str(context["error"]).partition("; ")
        return _line(location, mistake["input"], reason, remedy or f"expected: {_description(location)}")
    reason, remedy = PLAIN[kind]
    known = {key: str(value).replace("'", '"') for key, value in context.items()}
    return _line(location, mistake["input"], reason, remedy.format(**known))


def _line(location: Location, value: object, reason: str, remedy: str) -> str:
    key = ".".join(each if BARE_KEY.fullmatch(each) else json.dumps(each) for each in location)
    shown = f"{key} = {_toml(value)}"
    if value is None:
        shown = key
    elif isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
        shown = f"[{key}]"
    return f"{shown}: {reason}; {remedy}"


def _toml(value: object) -> str:
    """Return a value as it would stand in the file, on one line, cut if it is long."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, (list, tuple)):
        text = f"[{', '.join(_toml(each) for each in value)}]"
    else:
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _model(location: Location) -> type[BaseModel] | None:
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


def _description(location: Location) -> str:
    model = _model(location[:-1])
    field = model.model_fields.get(location[-1]) if model else None
    return (field.description if field else None) or "see docs/configuration.md"


def _settings(location: Location) -> list[str]:
    model = _model(location[:-1])
    return list(model.model_fields) if model else []


def _nearest(location: Location) -> str | None:
    return next(iter(difflib.get_close_matches(location[-1], _settings(location), n=1)), None)


def _other_setting(location: Location) -> str:
    nearest = _nearest(location)
    if nearest:
        return f"did you mean {nearest}?"
    return f"remove it: settings here are {', '.join(_settings(location))}"


if __name__ == "__main__":
    try:
        load_environment(name=sys.argv[1], path=None, directory=CONFIG)
    except ConfigurationError as wrong:
        sys.exit(f"configuration error: {wrong}")
