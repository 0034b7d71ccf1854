"""An explanation for people: as text for a terminal, and as one HTML file to read, print and keep.

Whatever clients wrote is escaped: for the terminal by `plain`, for HTML by Jinja2. The file needs nothing but
itself: no script, no font, no image from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from model_lifecycle.explanation import Explanation
from model_lifecycle.terminal import plain
from model_lifecycle.timeline import LEFT, RIGHT, WIDTH, timeline

_MARKS = {"intact": "✓", "tampered": "✗"}
_LONGEST = 20_000


def as_text(explanation: Explanation) -> str:
    """The account in lines of text."""
    e = explanation
    checked = e.integrity
    record = "not whole" if e.record_problems else f"whole, {e.record_entries} entries"
    lines = [
        f"{e.name} version {e.version} ({e.asked})",
        f"  stage        {', '.join((e.stage, *(f'@{alias}' for alias in e.aliases)))}",
        f"  trained      {_when(e.trained_at)} by {e.trained_by or 'unknown'}",
        f"  registered   {_when(e.registered_at)} by {e.registered_by or 'unknown'}",
        f"  approved     by {', '.join(e.approved_by) or 'nobody'}",
        f"  run          {e.run_id} in {e.experiment}",
        f"  artifacts    {e.artifact_uri}",
        f"  code         {', '.join(f'{key} {value}' for key, value in e.code.items()) or 'not recorded'}",
        f"  {_MARKS.get(checked.verdict, '·')} files      {checked.verdict} at {_when(checked.at)}: "
        f"{checked.note}",
        *(f"      {each}" for each in checked.damage),
        f"  {'✗' if e.record_problems else '·'} record     {record}",
        *(f"      {each}" for each in e.record_problems),
        *(f"  warning      {each}" for each in e.warnings),
    ]
    lines += _block("live", (f"{each.name}: {_span(each.since, each.until)}" for each in e.live))
    lines += _block(
        "life",
        (
            f"{_when(each.at)}  {each.what}{f' by {each.by}' if each.by else ''}"
            + (f" ({each.detail})" if each.detail else "")
            for each in e.life
        ),
    )
    lines += _block("metrics", (f"{name} = {value:.6g}" for name, value in e.metrics.items()))
    lines += _block("parameters", (f"{name} = {value}" for name, value in e.parameters.items()))
    lines += _block("data", (f"{each.name} ({each.context}), digest {each.digest}" for each in e.data))
    if e.claims:
        lines += _block("written by clients, judges nothing", (each.tag for each in e.claims))
    return "\n".join(map(plain, lines))


def _block(title: str, lines: Iterable[str]) -> list[str]:
    return [f"  {title}", *(f"      {line}" for line in lines)]


def as_html(explanation: Explanation) -> str:
    """The account as a self-contained HTML document."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters.update(when=_when, source=_source)
    template = environment.from_string(_resource("report.html.jinja"))
    return template.render(
        e=explanation,
        style=Markup(_resource("report.css")),  # noqa: S704 - our own file
        picture=timeline(explanation),
        damaged={each.path for each in explanation.integrity.damage},
        left=LEFT,
        right=WIDTH - RIGHT,
        width=WIDTH,
    )


def _resource(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _shown(value: object) -> object:
    """What is put into the page: text of bounded length in which nothing is hidden or reordered."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    shown = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}… ({len(value):,} characters)"
    return "\n".join(plain(line, limit=len(shown)) for line in shown.replace("\r\n", "\n").split("\n"))


def _source(text: str) -> str:
    """Where data came from, out of the JSON that MLflow keeps."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(raw, dict):
        return text
    named = next((str(raw[key]) for key in ("uri", "url", "path") if raw.get(key)), "")
    tags = raw.get("tags")
    if not named and isinstance(tags, dict):
        named = ", ".join(f"{key.removeprefix('mlflow.source.')} {value}" for key, value in tags.items())
    return named or text


def _when(iso: str) -> str:
    """2026-01-31 12:00:00 UTC; the seconds' fraction stays in the JSON."""
    return f"{iso[:10]} {iso[11:19]} UTC" if iso else ""


def _span(since: str, until: str) -> str:
    return f"{_when(since) or 'before the record'} to {_when(until) or 'now'}"
