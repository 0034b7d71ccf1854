"""When a version was live, drawn: a lane for Production with all versions, and one for each name of ours."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from model_lifecycle.explanation import Explanation

WIDTH, LEFT, RIGHT = 960, 110, 20
_LANE, _TOP = 34, 8


@dataclass(frozen=True)
class TimelineBar:
    """A time in which the lane's name meant this version."""

    left: float
    width: float
    version: str
    ours: bool
    title: str


@dataclass(frozen=True)
class TimelineLane:
    """One stage or alias."""

    top: int
    name: str
    bars: tuple[TimelineBar, ...]


@dataclass(frozen=True)
class Timeline:
    """What the report draws, in units of its SVG."""

    lanes: tuple[TimelineLane, ...]
    start: dt.datetime
    end: dt.datetime

    @property
    def bottom(self) -> int:
        """Where the labels of the axis are."""
        return _TOP + len(self.lanes) * _LANE + 10


def timeline(explanation: Explanation) -> Timeline | None:
    """The picture, or None if nothing was ever live.

    Where times lie so close together that a bar would vanish, bars keep a width that can be seen.
    """
    lanes = [
        ("Production", [(row["version"], row["since"], row["until"]) for row in explanation.stage_history])
    ]
    names = list(dict.fromkeys(each.name for each in explanation.live if each.name != "Production"))
    for name in names:
        own = [each for each in explanation.live if each.name == name]
        lanes.append((name, [(explanation.version, each.since, each.until) for each in own]))
    lanes = [lane for lane in lanes if lane[1]]
    times = [_time(t) for _, bars in lanes for _, *ends in bars for t in ends if t]
    if not times:
        return None
    now = max(_time(explanation.generated), *times)
    start, span = min(times), max((now - min(times)).total_seconds(), 1.0)

    def x(moment: str, otherwise: dt.datetime) -> float:
        seconds = ((_time(moment) if moment else otherwise) - start).total_seconds()
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / span

    def bar(version: str, since: str, until: str) -> TimelineBar:
        left = x(since, start)
        title = f"version {version}: {since or 'before the record'} to {until or 'now'}"
        return TimelineBar(
            left, max(x(until, now) - left - 1, 3), version, version == explanation.version, title
        )

    drawn = (
        TimelineLane(_TOP + row * _LANE, name, tuple(bar(*each) for each in bars))
        for row, (name, bars) in enumerate(lanes)
    )
    return Timeline(tuple(drawn), start, now)


def _time(iso: str) -> dt.datetime:
    return dt.datetime.fromisoformat(iso)
