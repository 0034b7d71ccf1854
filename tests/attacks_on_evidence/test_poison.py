"""Point 4, end to end: whatever a contributor writes, `explain`, `promote` and the report stand, escaped.

tests/lifecycle tries each field alone; here everything is sent by a stock client through the server.
"""

from __future__ import annotations

import contextlib
import html.parser
import json
import random
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.attacks_on_evidence.site import APPROVER, AUTHOR, COLLEAGUE, FILES, VIEWER, Model, Site

pytestmark = pytest.mark.slow

EVENT = "20260101T000000.000000Z-0000"
HTML = "<img src=x onerror=alert(1)><script>alert(1)</script>\"'><svg/onload=alert(1)>"
# No contributor may set how the terminal of a reader looks, or what its title is.
TERMINAL = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b1m \u202e\u2066 \r\b\x7f"
DEEP = "[" * 20_000 + "]" * 20_000
LARGE = "x" * 2**20

DECISION: Mapping[str, Any] = {
    "action": "promote",
    "version": "1",
    "stage": "Production",
    "alias": "champion",
    "compared_with": "",
    "at": "2026-01-01T00:00:00+00:00",
    "event": EVENT,
    "principal": APPROVER.arn,
    "role": "approver",
    "policy": {"file": "policy.toml", "version": 1, "sha256": "0" * 64},
    "rules": [{"rule": "auc", "passed": True, "observed": "1", "required": "0"}],
    "manifest_sha256": "0" * 64,
    "ci": {"url": "https://example.org", "name": "CI"},
    "schema": 1,
}
NASTY: tuple[Any, ...] = (
    5,
    None,
    True,
    1e308,
    [],
    ["x"],
    {},
    {"x": ["y", {"z": None}]},
    HTML,
    TERMINAL,
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "x" * 50_000,
)

TEXTS: Mapping[str, str] = {
    "html": HTML,
    "a terminal's commands": TERMINAL,
    "a template": "{{ 7 * 7 }} {% for x in y %} ${7*7} %(x)s {0}",
    "a link": "javascript:alert(document.domain)",
    "deep JSON": DEEP,
    "half of a pair": "\\ud800",
    "1 MB": LARGE,
    "a list": '["x"]',
    "a number": "5",
    "null": "null",
    "too large a number": "1" * 5_000,
    "not a number": '{"items": NaN, "seal": Infinity}',
}
TAG_KEYS = (
    "lifecycle.manifest",
    "lifecycle.manifest.1",
    f"lifecycle.decision.{EVENT}",
    "lifecycle.decision.x",
    "team",
    HTML[:200],
)


def decisions(rng: random.Random) -> dict[str, str]:
    """Decisions as tags, in each of which something is not what it should be."""
    found = {}
    for number, (field, value) in enumerate((field, value) for field in DECISION for value in NASTY):
        # A version has room for so many tags that a reader would not wait for all of them.
        if rng.random() < 0.5:
            found[f"lifecycle.decision.{EVENT[:-4]}{number:04x}"] = json.dumps({**DECISION, field: value})
    policy = {**DECISION["policy"], "version": HTML}
    rule = {"rule": HTML, "passed": "no", "observed": [HTML], "required": {HTML: HTML}}
    found[f"lifecycle.decision.{EVENT}"] = json.dumps(
        {**DECISION, "policy": policy, "rules": [rule, 5, None]}
    )
    return found


def poison(model: Model, texts: Mapping[str, str]) -> None:
    """Write these texts, by key, wherever a contributor can; what the server refuses is refused."""
    from mlflow.exceptions import MlflowException

    text = next(iter(texts.values()))
    with model.site.being(COLLEAGUE) as client:
        writes: list[Any] = [
            lambda: client.update_model_version(model.name, model.number, text),
            lambda: client.update_registered_model(model.name, text),
            lambda: client.set_registered_model_tag(model.name, "lifecycle.manifest", text),
            lambda: client.set_tag(model.run_id, "mlflow.note.content", text),
            *(
                lambda key=key, value=value: client.set_model_version_tag(
                    model.name, model.number, key, value
                )
                for key, value in texts.items()
            ),
        ]
        for write in writes:
            with contextlib.suppress(MlflowException):
                write()


def poisoned_run(site: Site, text: str) -> Model:
    """A version whose run was logged with the text wherever a run takes one, as its author may."""
    from mlflow.exceptions import MlflowException

    model = Model(site, f"model-{secrets.token_hex(4)}", "1", "", "", None)
    with site.being(AUTHOR) as client:
        if not site.experiment:
            site.experiment.append(client.create_experiment("attacked"))
        run = client.create_run(site.experiment[0], run_name=text[:200])
        run_id = run.info.run_id
        dataset = {"name": text[:400], "digest": text[:36], "source_type": text[:36], "source": text[:60_000]}
        writes: list[Any] = [
            lambda: client.log_metric(run_id, "auc", 0.8),
            lambda: client.log_metric(run_id, "nan", float("nan")),
            lambda: client.log_param(run_id, "text", text[:6_000]),
            *(
                lambda key=key: client.set_tag(run_id, key, text)
                for key in (
                    "mlflow.source.git.commit",
                    "mlflow.source.name",
                    "mlflow.source.git.repoURL",
                    "mlflow.log-model.history",
                    "mlflow.datasets",
                    "mlflow.note.content",
                    "environment",
                )
            ),
        ]
        for write in writes:
            with contextlib.suppress(MlflowException):
                write()
        site.send(
            AUTHOR,
            "POST",
            "runs/log-inputs",
            {
                "run_id": run_id,
                "datasets": [
                    {"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": text[:400]}]}
                ],
            },
        )
        prefix = run.info.artifact_uri.split("/", 3)[3] + "/model"
        for path, content in FILES.items():
            site.s3(AUTHOR).put_object(Bucket=site.bucket, Key=f"{prefix}/{path}", Body=content)
        client.set_terminated(run_id)
        client.create_registered_model(model.name, description=text[:4_000])
        client.create_model_version(
            model.name, f"{run.info.artifact_uri}/model", run_id, description=text[:4_000]
        )
    return Model(site, model.name, "1", run_id, prefix, None)


class _Elements(html.parser.HTMLParser):
    """The elements and attributes of a page, as a browser would find them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "base", "form", "link"):
            self.active.append(tag)
        for name, value in attrs:
            scheme = (value or "").strip().lower().partition(":")[0]
            if name.startswith("on") or scheme in ("javascript", "vbscript"):
                self.active.append(f"{tag} {name}={value}")


def assert_stands(model: Model, directory: Path) -> None:
    """It can be explained and promoted, nothing it shows is active, and the verdict is right."""
    site, page = model.site, directory / "report.html"
    site.promote(model.name, model.number, "staging")
    site.promote(model.name, model.number, "production")
    said = site.lifecycle(VIEWER, "explain", model.name, model.number, f"--html={page}")
    assert (said.code, said.document["outcome"]) == (0, "intact"), said.words
    assert _Elements(page.read_text()).active == []
    shown = set(said.words) - set("\n\t")
    assert not [
        each for each in shown if ord(each) < 32 or 0x7F <= ord(each) < 0xA0 or each in "\u202e\u2066"
    ]
    assert len(said.words) < 200_000
    assert page.stat().st_size < 5_000_000


@pytest.mark.parametrize("text", TEXTS)
def test_text_on_a_version_leaves_everything_standing(text: str, site: Site, tmp_path: Path) -> None:
    model = site.model("run artifact", until="before Staging")
    poison(model, dict.fromkeys(TAG_KEYS, TEXTS[text]))
    assert_stands(model, tmp_path)


@pytest.mark.parametrize("text", TEXTS)
def test_text_on_a_run_leaves_everything_standing(text: str, site: Site, tmp_path: Path) -> None:
    assert_stands(poisoned_run(site, TEXTS[text]), tmp_path)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_decisions_of_any_shape_leave_everything_standing(seed: int, site: Site, tmp_path: Path) -> None:
    model = site.model("logged model", until="before Staging")
    poison(model, decisions(random.Random(seed)))
    assert_stands(model, tmp_path)
