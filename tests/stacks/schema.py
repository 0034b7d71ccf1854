"""Every setting of the schema, and a whole file in which each of them stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from stacks.config import EnvironmentConfig


def settings(model: type[BaseModel] = EnvironmentConfig, path: str = "") -> Iterator[str]:
    """Yield every setting as `table.key`, with `*` for the number of a table in an array of tables."""
    for key, field in model.model_fields.items():
        section, many = _section(field.annotation)
        if section is None:
            yield f"{path}{key}"
        else:
            yield from settings(section, f"{path}{key}.*." if many else f"{path}{key}.")


def _section(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    arguments = getattr(annotation, "__args__", ())
    for option in (annotation, *arguments):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option, annotation is not option and getattr(annotation, "__origin__", None) is tuple
    return None, False


def replaced(document: Mapping[str, Any], setting: str, value: Any) -> dict[str, Any]:
    """Return the document with this setting changed; what holds it must be there already."""
    key, _, rest = setting.partition(".")
    if not rest:
        return {**document, key: value}
    if rest.startswith("*."):
        first, *others = document[key]
        return {**document, key: [replaced(first, rest.removeprefix("*."), value), *others]}
    return {**document, key: replaced(document.get(key, {}), rest, value)}
