"""The resources that a process tree uses, from /proc (Linux only; elsewhere there are no figures)."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """CPU seconds since start (reaped children included) and memory of a process tree.

    `pss` divides memory that several processes share among them, so that it adds up; `rss` counts it once for
    each process. Both are in bytes.
    """

    processes: int
    cpu_seconds: float
    pss: int
    rss: int


def tree(root: int) -> list[int]:
    """`root` and its descendants; empty if it does not run or there is no /proc."""
    children = defaultdict(list)
    for entry in _PROC.glob("[0-9]*"):
        stat = _stat(int(entry.name))
        if stat:
            children[int(stat[1])].append(int(entry.name))
    own = _stat(root)
    if not own or own[0] == "Z":
        return []
    found = [root]
    for each in found:
        found.extend(children[each])
    return found


def cpu_seconds(root: int) -> float:
    """CPU time of the tree so far, user and system, in seconds."""
    tick = os.sysconf("SC_CLK_TCK")
    return sum(sum(map(int, stat[11:15])) for pid in tree(root) if (stat := _stat(pid))) / tick


def memory(root: int) -> tuple[int, int]:
    """PSS and RSS of the tree, in bytes."""
    pss = rss = 0
    for pid in tree(root):
        fields = _rollup(pid)
        pss += fields.get("Pss", 0)
        rss += fields.get("Rss", 0)
    return pss, rss


def usage(root: int) -> Usage:
    """Processes, CPU time and memory of the tree."""
    pss, rss = memory(root)
    return Usage(processes=len(tree(root)), cpu_seconds=cpu_seconds(root), pss=pss, rss=rss)


def _stat(pid: int) -> list[str]:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    # The name in parentheses may contain anything; the state follows it.
    return text.rpartition(")")[2].split()


def _rollup(pid: int) -> dict[str, int]:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
