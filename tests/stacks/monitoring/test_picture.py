"""The dashboard's picture in the documentation is that of the template."""

from __future__ import annotations

import html

from tests.local.widgets import texts
from tests.stacks.conftest import ROOT
from tests.stacks.monitoring.test_dashboard import widgets
from tests.stacks.templates import Assembly


def test_the_picture_shows_every_widget_and_every_line_of_the_template(prod: Assembly) -> None:
    picture = html.unescape((ROOT / "docs" / "images" / "dashboard.svg").read_text())
    shown = texts({"widgets": widgets(prod.service)})
    assert len(shown) > 20
    assert [each for each in shown if f">{each}<" not in picture] == []
