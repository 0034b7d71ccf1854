"""The metrics of a task, as administrators and auditors are told them."""

from __future__ import annotations

import os
import re
import time

import pytest
from mlflow_aws_server.metrics import Measured, task
from mlflow_aws_server.metrics.recorder import Call, Counted, Recorder

from tests.server.metrics.test_lines import _app, _live

_CALL = Call("GET", "/api/2.0/mlflow/runs/get", "iam", "viewer", 200, False)
_SERIES = 'requests_total{method="GET",route="/api/2.0/mlflow/runs/get",lane="iam",role="viewer",code="200"}'
_LABEL = r'[a-z_]+="(?:[^"\\\n]|\\[\\n"])*"'
_SAMPLE = re.compile(rf"mlflow_aws_[a-z_]+(\{{{_LABEL}(,{_LABEL})*\}})? -?[0-9.e+-]+")


def _measured(*, slots: task.Slots | None = None, slot: int = 0, reason: str = "serving") -> Measured:
    measured = Measured(
        _app(200), deployment=None, recorder=Recorder(), slots=slots, state=lambda: {"fast_path": reason}
    )
    measured._slot = slot
    return measured


def _told(measured: Measured) -> dict[str, float]:
    lines = measured.exposition().decode().splitlines()
    samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name.removeprefix("mlflow_aws_"): float(value) for name, _, value in samples}


def test_the_text_is_prometheus_s() -> None:
    measured = _measured(reason='a "reason"\nof\\two lines')
    for seconds in (0.0005, 0.010, 99.0):
        measured._recorder.call(_CALL, seconds)
    lines = measured.exposition().decode().splitlines()
    names = set()
    for line in lines:
        if line.startswith("# TYPE "):
            names.add(line.split()[2])
        else:
            assert _SAMPLE.fullmatch(line), line
            family = re.sub("_(bucket|sum|count)$", "", line.partition("{")[0].split()[0])
            assert family in names
    told = _told(measured)
    assert told[_SERIES] == 3
    route = 'method="GET",route="/api/2.0/mlflow/runs/get"'
    assert told[f'request_seconds_bucket{{{route},le="0.001"}}'] == 1
    assert told[f'request_seconds_bucket{{{route},le="0.0114"}}'] == 2
    assert (
        told[f'request_seconds_bucket{{{route},le="+Inf"}}'] == told[f"request_seconds_count{{{route}}}"] == 3
    )
    assert told[f"request_seconds_sum{{{route}}}"] == pytest.approx(99.0105)


def test_processes_tell_each_other_through_a_fork() -> None:
    slots = task.Slots()
    child = os.fork()
    if not child:
        counted = Counted(calls={_CALL: 7}, spent={("GET", "/", 3): (7, 0.5)})
        counted.counts["DatabaseErrors"] = 2
        slots.write(5, task.encode(counted, at=time.time(), fast_path="another", waiting=4))
        os._exit(0)
    os.waitpid(child, 0)
    told = _told(_measured(slots=slots))
    assert (told[_SERIES], told["database_errors_total"], told['waiting{process="5"}']) == (7, 2, 4)
    assert told['state{process="5",fast_path="another",schema="None",schema_head="None"}'] == 1


async def test_who_takes_the_place_of_another_goes_on_counting() -> None:
    slots = task.Slots()
    first = _measured(slots=slots, slot=1)
    first._recorder.call(_CALL, 0.01)
    await _live(first)
    second = _measured(slots=slots, slot=1)
    await _live(second)
    second._recorder.call(_CALL, 0.01)
    for teller in (second, _measured(slots=slots, slot=0)):
        told = _told(teller)
        # The other is told what there was when it ended.
        assert told[_SERIES] == (2 if teller is second else 1)
    # In its lines are its own calls alone: the others were in the first one's.
    assert second._recorder.minute.calls == {_CALL: 1}


async def test_of_a_process_that_is_gone_remains_what_it_counted() -> None:
    slots = task.Slots()
    slots.write(1, task.encode(Counted(calls={_CALL: 7}), at=time.time() - 3600, waiting=4))
    told = _told(_measured(slots=slots))
    assert told[_SERIES] == 7
    assert 'waiting{process="1"}' not in told


def test_while_a_document_is_written_the_former_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_: bytes) -> int:
        raise KeyboardInterrupt

    slots = task.Slots()
    for former in (b"first", b"second"):
        slots.write(0, former)
        with monkeypatch.context() as patch:
            # It comes after the text, and before the head that names it.
            patch.setattr("mlflow_aws_server.metrics.task.zlib.crc32", killed)
            with pytest.raises(KeyboardInterrupt):
                slots.write(0, b"the next one")
        assert slots.read(0) == former


def test_what_does_not_fit_is_not_written() -> None:
    slots = task.Slots()
    slots.write(3, b"{}")
    for slot, document in ((3, b"x" * (1 << 20)), (64, b"{}")):
        with pytest.raises(ValueError, match="do not fit"):
            slots.write(slot, document)
    assert [*slots.all()] == [(3, b"{}")]
