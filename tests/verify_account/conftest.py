"""A platform of these tests' own, which they break and mend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.laptop import Laptop, running_laptop


@pytest.fixture(scope="session")
def laptop() -> Iterator[Laptop]:
    with running_laptop() as laptop:
        yield laptop
