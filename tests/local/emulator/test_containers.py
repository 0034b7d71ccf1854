"""Containers that are processes: what goes in, how they end, what they leave."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from local.emulator.containers import Container, HealthCheck, Image, ImageNotFoundError, Runtime, Settings
from local.parts.processes import Ledger

MakeRuntime = Callable[..., Runtime]


@pytest.fixture
def make_runtime(tmp_path: Path) -> Iterator[MakeRuntime]:
    made: list[Runtime] = []

    def make(settings: Settings | None = None, **environment: str) -> Runtime:
        runtime = Runtime(
            images={"python": Image((sys.executable, "-c"), environment)},
            directory=tmp_path / "tasks",
            logs=tmp_path / "logs",
            ledger=Ledger(tmp_path / "processes"),
            prepare=lambda _labels: settings or Settings(),
        )
        made.append(runtime)
        return runtime

    yield make
    for runtime in made:
        runtime.close()


def run(runtime: Runtime, code: str, environment: Mapping[str, str] | None = None) -> Container:
    container = runtime.containers.run("python", command=[code], environment=environment)
    assert isinstance(container, Container)
    return container


def output(container: Container) -> str:
    said = container.logs()
    assert isinstance(said, bytes)
    return said.decode()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited 20 seconds in vain"
        time.sleep(0.02)


def test_nothing_of_the_surrounding_environment_reaches_a_container(
    make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "leaked")
    monkeypatch.setenv("SOMETHING_AMBIENT", "leaked")
    container = run(make_runtime(), "import os; print(sorted(os.environ))")
    container.wait()
    seen = set(eval(output(container)))
    assert seen - {"LC_CTYPE"} == {"HOME", "LANG", "PATH", "TMPDIR"}


def test_the_definition_wins_over_the_image_and_the_laptop_over_the_definition(
    make_runtime: MakeRuntime,
) -> None:
    runtime = make_runtime(
        Settings(environment={"THIRD": "laptop"}), FIRST="image", SECOND="image", THIRD="image"
    )
    code = "import os; print(*(os.environ[name] for name in ('FIRST', 'SECOND', 'THIRD')))"
    container = run(runtime, code, {"SECOND": "definition", "THIRD": "definition"})
    container.wait()
    assert output(container).strip() == "image definition laptop"


def test_an_entry_point_of_the_definition_stands_in_for_the_image_s(make_runtime: MakeRuntime) -> None:
    container = run(make_runtime(Settings(entry_point=("/bin/echo", "said:"))), "words")
    container.wait()
    assert output(container).strip() == "said: words"


@pytest.mark.parametrize(
    ("code", "expected"), [("", 0), ("raise SystemExit(3)", 3), ("import os; os.abort()", 134)]
)
def test_the_exit_code_is_that_of_the_process(make_runtime: MakeRuntime, code: str, expected: int) -> None:
    container = run(make_runtime(), code)
    assert container.wait() == {"StatusCode": expected}
    assert container.status == "exited"


def test_stop_sends_sigterm_first(make_runtime: MakeRuntime) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked'), sys.exit(0)))\n"
        "print('up', flush=True); time.sleep(60)"
    )
    container = run(make_runtime(Settings(stop_seconds=30)), code)
    wait_for(lambda: "up" in output(container))
    container.stop()
    assert container.wait() == {"StatusCode": 0}
    assert "asked" in output(container)


def test_stop_kills_a_process_that_ignores_sigterm(make_runtime: MakeRuntime) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True); time.sleep(60)"
    )
    container = run(make_runtime(Settings(stop_seconds=0.3)), code)
    wait_for(lambda: "up" in output(container))
    container.stop()
    assert container.wait() == {"StatusCode": 128 + signal.SIGKILL}


def test_what_a_process_started_dies_with_it(make_runtime: MakeRuntime) -> None:
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    container = run(make_runtime(), code)
    container.wait()
    child = int(output(container))

    def gone() -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{child}/stat").exists() and ") Z " in Path(f"/proc/{child}/stat").read_text()

    wait_for(gone)


def test_logs_follow_the_process_to_its_end(make_runtime: MakeRuntime) -> None:
    code = "import time; print('one', flush=True); time.sleep(0.3); print('two'); print('three', end='')"
    container = run(make_runtime(), code)
    followed = container.logs(stream=True, follow=True)
    assert not isinstance(followed, bytes)
    assert b"".join(followed).decode().splitlines() == ["one", "two", "three"]


def test_logs_are_for_their_owner_only(make_runtime: MakeRuntime, tmp_path: Path) -> None:
    run(make_runtime(), "print(1)").wait()
    (log,) = (tmp_path / "logs").glob("*.log")
    assert log.stat().st_mode & 0o077 == 0


def test_closing_the_runtime_stops_all_containers_and_starts_no_more(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(Settings(stop_seconds=30))
    containers = [run(runtime, "import time; time.sleep(60)") for _ in range(3)]
    runtime.close()
    assert [container.status for container in containers] == ["exited"] * 3
    with pytest.raises(RuntimeError, match="is stopping"):
        run(runtime, "")


def test_what_a_task_s_first_container_depends_on_stops_after_it(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(Settings(stop_seconds=30))
    code = (
        "import signal, sys, time\n"
        "def end(*_): time.sleep({}); print(time.monotonic_ns()); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True)\ntime.sleep(60)"
    )
    server, audit = (
        runtime.containers.run(
            "python", command=[code.format(pause)], labels={"com.amazonaws.ecs.task-arn": "arn/1"}
        )
        for pause in (0.5, 0)
    )
    wait_for(lambda: "up" in output(server) and "up" in output(audit))
    runtime.close()
    ends = [int(output(each).splitlines()[-1]) for each in (server, audit)]
    assert ends == sorted(ends)


def test_an_unknown_image_names_those_there_are(make_runtime: MakeRuntime) -> None:
    with pytest.raises(ImageNotFoundError, match=r"'other:1' is not on this machine; there is: python"):
        make_runtime().containers.run("other:1")


def test_a_container_is_found_by_its_id_until_long_after_its_end(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    container = run(runtime, "")
    container.wait()
    assert runtime.containers.get(container.id) is container
    with pytest.raises(LookupError):
        runtime.containers.get("another")


def test_the_health_check_runs_in_the_containers_environment(make_runtime: MakeRuntime) -> None:
    heard: list[str] = []
    reported = threading.Event()

    def hear(status: str) -> None:
        heard.append(status)
        reported.set()

    settings = Settings(
        health_check=HealthCheck(command=("sh", "-c", 'test "$WORD" = right'), interval=0.05),
        on_health=hear,
    )
    run(make_runtime(settings), "import time; time.sleep(60)", {"WORD": "right"})
    assert reported.wait(20)
    assert heard == ["HEALTHY"]


def test_a_failing_health_check_is_reported_after_its_retries(
    make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    reported = threading.Event()
    count = tmp_path / "count"
    settings = Settings(
        health_check=HealthCheck(
            command=("sh", "-c", f"echo x >> {count}; exit 1"), interval=0.05, retries=3
        ),
        on_health=lambda status: reported.set() if status == "UNHEALTHY" else None,
    )
    run(make_runtime(settings), "import time; time.sleep(60)")
    assert reported.wait(20)
    assert len(count.read_text().split()) >= 3


def test_failures_while_it_starts_do_not_count(make_runtime: MakeRuntime, tmp_path: Path) -> None:
    heard: list[str] = []
    count = tmp_path / "count"
    settings = Settings(
        health_check=HealthCheck(
            command=("sh", "-c", f"echo x >> {count}; exit 1"), interval=0.05, retries=1, start_period=600
        ),
        on_health=heard.append,
    )
    run(make_runtime(settings), "import time; time.sleep(60)")
    wait_for(lambda: count.exists() and len(count.read_text().split()) >= 4)
    assert heard == []


def test_a_health_check_is_read_as_task_definitions_state_it() -> None:
    stated = {"command": ["CMD-SHELL", "exit 0"], "interval": 5, "timeout": 2, "retries": 4, "startPeriod": 9}
    assert HealthCheck.of(stated) == HealthCheck(
        command=("/bin/sh", "-c", "exit 0"), interval=5, timeout=2, retries=4, start_period=9
    )
    assert HealthCheck.of({"command": ["CMD", "a", "b"]}) == HealthCheck(command=("a", "b"))
    assert HealthCheck.of({"command": ["NONE"]}) is None
    assert HealthCheck.of(None) is None
