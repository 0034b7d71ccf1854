"""Sealed values that a browser carries for the load balancer."""

from __future__ import annotations

import pytest

from local.edge.sealed import CookieSeal, joined, shards

VALUES = {"access_token": "secret", "ends": 1.5}


def test_a_sealed_value_opens_again() -> None:
    seal = CookieSeal()
    sealed = seal.close(VALUES, purpose="session", seconds=60)
    assert seal.open(sealed, purpose="session") == VALUES
    assert "secret" not in sealed


def test_it_opens_only_for_its_purpose_with_its_key_and_in_time() -> None:
    seal = CookieSeal()
    sealed = seal.close(VALUES, purpose="session", seconds=60)
    assert seal.open(sealed, purpose="state") is None
    assert CookieSeal().open(sealed, purpose="session") is None
    assert seal.open(seal.close(VALUES, purpose="session", seconds=0), purpose="session") is None


@pytest.mark.parametrize("forged", ["", "AAAA", "not base64 !", "é", "A" * 64])
def test_what_was_never_sealed_does_not_open(forged: str) -> None:
    assert CookieSeal().open(forged, purpose="session") is None


def test_a_changed_seal_does_not_open() -> None:
    seal = CookieSeal()
    sealed = seal.close(VALUES, purpose="session", seconds=60)
    flipped = ("B" if sealed[20] == "A" else "A").join((sealed[:20], sealed[21:]))
    assert seal.open(flipped, purpose="session") is None


def test_a_long_value_takes_several_cookies() -> None:
    value = "x" * 5000
    parts = shards("Session", value)
    assert list(parts) == ["Session-0", "Session-1"]
    assert joined("Session", {**parts, "Other-0": "y"}) == value
    assert joined("Session", {"Session-1": "x"}) == ""
    with pytest.raises(ValueError, match="20000"):
        shards("Session", "x" * 20_000)
