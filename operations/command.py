"""What every command is made of: its words, its arguments, and what it gives back."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from operations.deployment import Deployment

Say = Callable[[str], object]
"""Told one line of progress for people."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The end of a command: for people, for programs, and whether all is well."""

    text: str
    document: Mapping[str, object]
    good: bool = True


@dataclass(frozen=True, kw_only=True)
class Command:
    """A sub-command; `run` may raise CannotRunError, FailedError and KeyboardInterrupt."""

    name: str
    help: str
    run: Callable[[Deployment, argparse.Namespace, Say], Report]
    add_arguments: Callable[[argparse.ArgumentParser], object] = lambda _parser: None


def moment(text: str) -> dt.datetime:
    """A moment that an operator names, in UTC.

    Raises:
        argparse.ArgumentTypeError: it is none, or has no time zone.
    """
    try:
        read = dt.datetime.fromisoformat(text)
    except ValueError:
        read = None
    if read is None or read.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time with its zone, such as 2026-11-28T10:00:00Z"
        )
    return read.astimezone(dt.UTC)
