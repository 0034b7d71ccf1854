"""An explanation for people: as text for a terminal, and as one HTML file to read, print and keep.

The file needs nothing but itself: no script, no font, no image from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from model_lifecycle.explanation import Explanation, LifeEvent
from model_lifecycle.timeline import timeline

_MARKS = {"intact": "✓", "tampered": "✗"}


def as_text(explanation: Explanation) -> str:
    """The account in lines of text."""
    e = explanation
    lines = [
        f"{e.name} version {e.version} ({e.asked})",
        f"  stage        {', '.join((e.stage, *_at(e.aliases)))}",
        f"  trained      {_when(e.trained_at)} by {e.trained_by or 'unknown'}",
        f"  registered   {_when(e.registered_at)} by {e.registered_by or 'unknown'}",
        f"  approved     by {', '.join(e.approved_by) or 'nobody'}",
        f"  run          {e.run_id} in {e.experiment}",
        f"  artifacts    {e.artifact_uri}",
        f"  code         {', '.join(f'{key} {value}' for key, value in e.code.items()) or 'not recorded'}",
        f"  {_MARKS.get(e.integrity, '·')} files      {e.integrity}: {e.integrity_note}",
    ]
    lines += [f"      {each}" for each in e.damage]
    lines += [f"  warning      {each}" for each in e.warnings]
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
    lines += _block(
        "data", (f"{each['name']} ({each['context']}), digest {each['digest']}" for each in e.data)
    )
    return "\n".join(lines)


def _block(title: str, lines: Iterable[str]) -> list[str]:
    return [f"  {title}", *(f"      {line}" for line in lines)]


def as_html(explanation: Explanation) -> str:
    """The account as a self-contained HTML document."""
    e = explanation
    title = f"{e.name}, version {e.version}"
    badge = "".join(f"<span class=badge>{escape(each)}</span>" for each in (e.stage, *_at(e.aliases)))
    body = "\n".join(
        (
            "<header><p class=kicker>Model report</p>"
            f"<h1>{escape(e.name)} <em>version {escape(e.version)}</em></h1><p>{badge}</p>"
            f"<p class=asked>Asked for: {escape(e.asked)}. {escape(e.description)}</p></header>",
            _verdict(e),
            _section("When it was live", timeline(e) + _live_table(e)),
            _section("Who", _who(e)),
            _section("Its whole life", _life(e.life)),
            _section("Decisions", _decisions(e.life)),
            '<div class="columns">'
            + _section("Metrics", _pairs({k: f"{v:.6g}" for k, v in e.metrics.items()}, kind="numeric"))
            + _section("Parameters", _pairs(e.parameters, kind="numeric"))
            + "</div>",
            _section("Data", _table(("name", "context", "digest", "source"), map(_data_row, e.data))),
            _section("Code", _pairs(e.code)),
            _section("Plots", _plots(e)),
            _section("Files", _files(e)),
            _section("Environment", "".join(_file(name, text) for name, text in e.environment.items())),
            _section("Where", _pairs(_where(e))),
            f"<footer>Made {escape(_when(e.generated))} from {escape(e.server)}. The names in “Who” and in "
            "“Its whole life” were verified and written by the server; the decisions are what the promoting "
            "command recorded.</footer>",
        )
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_style()}</style></head><body><main>{body}</main></body></html>\n"
    )


def _style() -> str:
    return (files(__package__) / "report.css").read_text(encoding="utf-8")


def _verdict(e: Explanation) -> str:
    kind = {"intact": "good", "tampered": "bad"}.get(e.integrity, "open")
    heading = {
        "intact": "The files are what was recorded",
        "tampered": "The files are not what was recorded",
        "not recorded": "No record to compare the files with",
        "unreadable": "The files could not be read",
        "not verified": "The files were not compared",
    }[e.integrity]
    damage = "".join(f"<li>{escape(str(each))}</li>" for each in e.damage)
    warnings = "".join(f"<li>{escape(each)}</li>" for each in e.warnings)
    return (
        f'<section class="verdict {kind}"><h2>{heading}</h2><p>{escape(e.integrity_note)}</p>'
        + (f"<ul>{damage}</ul>" if damage else "")
        + (f"<p>Note:</p><ul>{warnings}</ul>" if warnings else "")
        + "</section>"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content or '<p class=none>nothing recorded</p>'}</section>"


def _who(e: Explanation) -> str:
    rows: list[tuple[str, ...]] = [
        ("trained", e.trained_by or "not recorded", _when(e.trained_at)),
        ("registered", e.registered_by or "not recorded", _when(e.registered_at)),
    ]
    rows += [("approved", name, "") for name in e.approved_by] or [("approved", "nobody", "")]
    return _table(("", "verified name", "when"), rows)


def _life(life: Sequence[LifeEvent]) -> str:
    items = "".join(
        f'<li class="{"" if each.confirmed else "unconfirmed"}"><time>{escape(_when(each.at))}</time>'
        f"<div><b>{escape(each.what)}</b>{f' by <code>{escape(each.by)}</code>' if each.by else ''}"
        + (f"<br><small>{escape(each.detail)}</small>" if each.detail else "")
        + ("" if each.confirmed else "<br><small>not confirmed by the server’s own record</small>")
        + "</div></li>"
        for each in life
    )
    return f"<ol class=life>{items}</ol>"


def _decisions(life: Sequence[LifeEvent]) -> str:
    return "".join(_decision(each.decision, each.confirmed) for each in life if each.decision)


def _decision(made: Mapping[str, Any], confirmed: bool) -> str:
    policy, run = made["policy"], made["ci"]
    rows = [
        ("✓" if rule["passed"] else "✗", rule["rule"], rule["observed"], rule["required"])
        for rule in made["rules"]
    ]
    run_url = str(run.get("url", "")) if run else ""
    ran = f' · <a href="{escape(run_url)}">CI run</a>' if run_url.startswith("https://") else ""
    return (
        f"<article><h3>{escape(made['action'])} to {escape(made['stage'])} · {escape(_when(made['at']))}</h3>"
        f"<p>by <code>{escape(made['principal'] or 'unverified')}</code>{ran}"
        f"{'' if confirmed else ' · <b>not confirmed by the server’s own record</b>'}<br>"
        f"<small>policy {escape(policy['file'])}, version {policy['version']}, "
        f"sha256 {escape(policy['sha256'])}</small></p>"
        + _table(("", "rule", "observed", "required"), rows, kind="rules")
        + "</article>"
    )


def _live_table(e: Explanation) -> str:
    return _table(
        ("loaded by", "from", "until"),
        (
            (
                f"models:/{e.name}{each.name if each.name.startswith('@') else '/' + each.name}",
                _when(each.since) or "before the record",
                _when(each.until) or "now",
            )
            for each in e.live
        ),
    )


def _files(e: Explanation) -> str:
    if not e.files:
        return ""
    broken = {each.path for each in e.damage}
    rows = (
        (
            "✗" if item.path in broken else "✓" if e.integrity == "intact" else "",
            item.path,
            f"{item.size:,}",
            item.version_id,
            item.sha256[:16] + "…",
            _when(item.modified),
        )
        for item in e.files
    )
    return (
        _table(("", "path", "bytes", "S3 object version", "SHA-256", "written"), rows)
        + f"<p><small>manifest sha256 {escape(e.manifest_sha256)}</small></p>"
    )


def _plots(e: Explanation) -> str:
    figures = "".join(
        f'<figure><img alt="{escape(each.path)}" src="data:{each.media_type};base64,{each.base64}">'
        f"<figcaption>{escape(each.path)}</figcaption></figure>"
        for each in e.images
    )
    return f"<div class=plots>{figures}</div>" if figures else ""


def _where(e: Explanation) -> dict[str, str]:
    return {
        "experiment": e.experiment,
        "run": f"{e.run_name} {e.run_id}".strip(),
        "source": e.source,
        "artifacts": e.artifact_uri,
    }


def _data_row(each: Mapping[str, str]) -> tuple[str, ...]:
    shown = {"name", "context", "digest", "source", "source_type"}
    more = "".join(f"; {key} {value}" for key, value in each.items() if key not in shown)
    return each["name"], each["context"], each["digest"], _source(each["source"]) + more


def _source(text: str) -> str:
    try:
        raw = json.loads(text)
    except ValueError:
        return text
    if not isinstance(raw, dict):
        return text
    named = next((str(raw[key]) for key in ("uri", "url", "path") if raw.get(key)), "")
    tags = raw.get("tags")
    if not named and isinstance(tags, dict):
        named = ", ".join(f"{key.removeprefix('mlflow.source.')} {value}" for key, value in tags.items())
    return named or text


def _file(name: str, text: str) -> str:
    return f"<h3>{escape(name)}</h3><pre>{escape(text.strip())}</pre>"


def _pairs(values: Mapping[str, str], *, kind: str = "") -> str:
    rows = ((name, value) for name, value in values.items() if value)
    return _table(("", ""), rows, kind=kind)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    body = "".join(f"<tr>{''.join(_cells(row))}</tr>" for row in rows)
    if not body:
        return ""
    top = (
        f"<thead><tr>{''.join(f'<th>{escape(each)}</th>' for each in head)}</tr></thead>" if any(head) else ""
    )
    return f"<table{f' class={kind}' if kind else ''}>{top}<tbody>{body}</tbody></table>"


def _cells(row: Sequence[str]) -> Iterator[str]:
    for cell in row:
        kind = {"✓": " class=yes", "✗": " class=no"}.get(cell, "")
        yield f"<td{kind}>{escape(cell)}</td>"


def _at(aliases: Sequence[str]) -> list[str]:
    return [f"@{alias}" for alias in aliases]


def _when(iso: str) -> str:
    """2026-01-31 12:00:00 UTC; the seconds' fraction stays in the JSON."""
    return f"{iso[:10]} {iso[11:19]} UTC" if iso else ""


def _span(since: str, until: str) -> str:
    return f"{_when(since) or 'before the record'} to {_when(until) or 'now'}"
