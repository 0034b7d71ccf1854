"""Ports on loopback: usual ones if free, the same ones again if possible."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from local.parts import ports


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield int(taken.getsockname()[1])


@pytest.fixture
def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_preferred_port_is_taken_if_it_is_free(free: int) -> None:
    assert ports.choose({"aws": free}, {}) == {"aws": free}


def test_a_busy_port_is_not_chosen(busy: int) -> None:
    chosen = ports.choose({"aws": busy}, {})["aws"]
    assert chosen != busy
    assert ports.is_free(chosen)


def test_the_remembered_port_comes_before_the_preferred_one(free: int, busy: int) -> None:
    assert ports.choose({"aws": busy}, {"aws": free}) == {"aws": free}


@pytest.mark.parametrize("remembered", ["8443", 80, -1, 70000, None])
def test_a_remembered_port_that_is_invalid_is_ignored(remembered: object, free: int) -> None:
    assert ports.choose({"aws": free}, {"aws": remembered}) == {"aws": free}


def test_no_port_is_given_twice(free: int) -> None:
    chosen = ports.choose({"aws": free, "tracking": free}, {})
    assert len(set(chosen.values())) == 2


def test_a_port_taken_on_ipv6_only_is_not_free() -> None:
    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with taken:
        assert not ports.is_free(int(taken.getsockname()[1]))
