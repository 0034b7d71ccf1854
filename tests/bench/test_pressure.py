from __future__ import annotations

from collections import Counter

from bench.corpus import Corpus
from bench.pressure import as_record, large_bodies, slow_clients, under
from tests.bench.conftest import TinyServer


async def test_slow_clients_hold_connections_while_others_are_served(
    tiny: TinyServer, corpus: Corpus
) -> None:
    attack = slow_clients(tiny.wire, corpus, clients=5)
    seen = await under(tiny.wire, corpus, attack, memory=lambda: 7, seconds=1.2)
    assert seen.seen == Counter({"still connected": 5})
    assert seen.probe.succeeded > 0
    assert seen.probe.errors == 0
    # No body was complete.
    assert tiny.calls("log-batch") == []


async def test_large_bodies_have_the_stated_size(tiny: TinyServer, corpus: Corpus) -> None:
    seen = await large_bodies(tiny.wire, corpus, clients=1, size=200_000)(0.2)
    assert seen["answered 200"] == len(tiny.calls("log-batch")) > 0
    assert sum(len(tag["value"]) for tag in tiny.calls("log-batch")[0]["tags"]) > 190_000


async def test_the_record_holds_the_others_view_and_the_memory(tiny: TinyServer, corpus: Corpus) -> None:
    readings = iter([1_000_000, 5_000_000])

    async def attack(_seconds: float) -> Counter[str]:
        return Counter({"answered 400": 2})

    seen = await under(tiny.wire, corpus, attack, memory=lambda: next(readings, 2_000_000), seconds=0.5)
    record = as_record("large-bodies", 2, "ours", seen, restarted=False)
    assert (record.more["pss_mb_before"], record.more["pss_mb_peak"], record.more["pss_mb_after"]) == (
        1,
        5,
        2,
    )
    assert record.more["clients_saw"] == {"answered 400": 2}
    assert record.rps
