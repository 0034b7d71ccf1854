"""The weekly hours in which RDS backs up and maintains a database, and whether they collide."""

from __future__ import annotations

import re
from dataclasses import dataclass

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60
WEEK = len(DAYS) * DAY
SHORTEST = 30

_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True)
class Window:
    """Minutes of the week, UTC: `start` counts from Monday, and the end may lie in the next week."""

    start: int
    length: int

    def overlaps(self, other: Window) -> bool:
        """Tell whether both contain the same minute of a week; a window may begin where another ends."""
        return (self.start - other.start) % WEEK < other.length or (
            other.start - self.start
        ) % WEEK < self.length


def backup_windows(text: str) -> list[Window]:
    """Return the window of each day of `hh:mm-hh:mm`; raise ValueError if RDS would refuse it."""
    start, end = (_minute(each) for each in _ends(text, example="02:00-03:00"))
    length = _long_enough((end - start) % DAY)
    return [Window(day * DAY + start, length) for day in range(len(DAYS))]


def maintenance_window(text: str) -> Window:
    """Return the window of `ddd:hh:mm-ddd:hh:mm`; raise ValueError if RDS would refuse it."""
    start, end = (_minute_of_week(each) for each in _ends(text, example="sun:03:30-sun:04:30"))
    length = _long_enough((end - start) % WEEK)
    if length >= DAY:
        raise ValueError("lasts a day or longer; RDS takes less")
    return Window(start, length)


def _ends(text: str, *, example: str) -> tuple[str, str]:
    start, separator, end = text.partition("-")
    if not separator or len(text) != len(example):
        raise ValueError(f"is not a window such as {example}")
    return start, end


def _minute_of_week(text: str) -> int:
    day, _, time = text.partition(":")
    if day not in DAYS:
        raise ValueError(f"names no day; days are {', '.join(DAYS)}")
    return DAYS.index(day) * DAY + _minute(time)


def _minute(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"has no time of day in {text}; times are 00:00 to 23:59, UTC")
    return int(match[1]) * 60 + int(match[2])


def _long_enough(length: int) -> int:
    if length < SHORTEST:
        raise ValueError(f"lasts {length} minutes; RDS demands {SHORTEST} or more")
    return length
