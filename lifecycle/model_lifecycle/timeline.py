"""When a version was live, drawn: a lane for Production with all versions, and one for each name of ours."""

from __future__ import annotations

import datetime as dt
from html import escape

from model_lifecycle.explanation import Explanation

_WIDTH, _LEFT, _RIGHT, _LANE, _TOP = 960, 110, 20, 34, 8
_OURS, _OTHERS, _INK, _LINE = "#0b63ce", "#cfd7e3", "#1d2430", "#e3e7ee"


def timeline(explanation: Explanation) -> str:
    """An inline SVG; "" if nothing was ever live.

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
        return ""
    now = max(_time(explanation.generated), *times)
    start, span = min(times), max((now - min(times)).total_seconds(), 1.0)

    def x(moment: str, otherwise: dt.datetime) -> float:
        seconds = ((_time(moment) if moment else otherwise) - start).total_seconds()
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * seconds / span

    parts = []
    for row, (name, bars) in enumerate(lanes):
        top = _TOP + row * _LANE
        parts.append(f'<text x="0" y="{top + 17}" font-size="13" fill="{_INK}">{escape(name)}</text>')
        parts.append(f'<path d="M{_LEFT} {top + 24.5}H{_WIDTH - _RIGHT}" stroke="{_LINE}"/>')
        for version, since, until in bars:
            left, right = x(since, start), x(until, now)
            width = max(right - left - 1, 3)
            ours = version == explanation.version
            words = f"version {version}: {since or 'before the record'} to {until or 'now'}"
            parts.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="24" rx="4" '
                f'fill="{_OURS if ours else _OTHERS}"><title>{escape(words)}</title></rect>'
            )
            if width > 24:
                parts.append(
                    f'<text x="{left + width / 2:.1f}" y="{top + 16.5}" font-size="12" text-anchor="middle" '
                    f'fill="{"#fff" if ours else _INK}">v{escape(version)}</text>'
                )
    bottom = _TOP + len(lanes) * _LANE + 10
    parts.append(_label(_LEFT, bottom, "start", start))
    parts.append(_label(_WIDTH - _RIGHT, bottom, "end", now))
    return (
        f'<svg class="timeline" role="img" aria-label="when version {escape(explanation.version)} was live" '
        f'viewBox="0 0 {_WIDTH} {bottom + 8}" font-family="inherit">{"".join(parts)}</svg>'
    )


def _label(x: float, y: float, anchor: str, moment: dt.datetime) -> str:
    words = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    return f'<text x="{x}" y="{y}" font-size="11" text-anchor="{anchor}" fill="#5d6878">{words}</text>'


def _time(iso: str) -> dt.datetime:
    return dt.datetime.fromisoformat(iso)
