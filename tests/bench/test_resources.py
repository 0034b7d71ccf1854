from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import resources

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="figures come from /proc"
)

_PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def parent() -> Iterator[tuple[int, int]]:
    process = subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    yield process.pid, int(process.stdout.readline())
    process.communicate(b"\n", timeout=10)


def test_a_tree_is_the_process_and_its_children(parent: tuple[int, int]) -> None:
    assert resources.tree(parent[0]) == list(parent)


def test_memory_and_processes_of_all_of_the_tree_count(parent: tuple[int, int]) -> None:
    whole, child = resources.usage(parent[0]), resources.usage(parent[1])
    assert (whole.processes, child.processes) == (2, 1)
    assert whole.rss > child.rss > 0
    assert 0 < whole.pss <= whole.rss


def test_cpu_of_children_that_have_ended_still_counts() -> None:
    before = resources.cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True)
    assert resources.cpu_seconds(os.getpid()) > before


def test_a_process_that_is_gone_has_no_tree() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert resources.tree(gone.pid) == []
