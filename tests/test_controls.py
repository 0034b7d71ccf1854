"""Every control of docs/controls.md has evidence that exists, and a form that an auditor knows."""

from __future__ import annotations

import re

from local.state import PROJECT

_LINES = (PROJECT / "docs" / "controls.md").read_text().splitlines()
_ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in _LINES if line.startswith("| ")][
    1:
]
# https://www.aicpa-cima.com/resources/download/2017-trust-services-criteria-with-revised-points-of-focus-2022,
# 45 CFR 164.308-312, and ISO/IEC 27001:2022's themes: 37, 8, 14 and 34 controls.
_SOC2 = re.compile(r"(CC[1-9]|A1|C1|PI1|P[1-8])\.\d")
_HIPAA = re.compile(r"3(08|10|12)\([a-e]\)(\(\d\))?(\([iv]+\))?(\([A-D]\))?")
_ISO = re.compile(r"A\.(5\.([1-9]|[12]\d|3[0-7])|6\.[1-8]|7\.([1-9]|1[0-4])|8\.([1-9]|[12]\d|3[0-4]))")


def test_every_evidence_exists() -> None:
    assert len(_ROWS) > 20
    for what, *_, evidence, _ in _ROWS:
        named = re.findall(r"`([^`]+)`", evidence)
        assert named, what
        assert [each for each in named if not (PROJECT / each).exists()] == []


def test_every_control_is_of_its_standard() -> None:
    for _, soc2, hipaa, iso, *_ in _ROWS:
        for cell, form in ((soc2, _SOC2), (hipaa, _HIPAA), (iso, _ISO)):
            assert [each for each in cell.split(", ") if not form.fullmatch(each)] == []
