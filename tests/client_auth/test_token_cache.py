from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow_aws_auth.token_cache import Token, TokenCache

LIFE = 900.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Gives numbered tokens, or raises."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.count = 0
        self.error: Exception | None = None

    def __call__(self) -> Token:
        self.count += 1
        if self.error is not None:
            raise self.error
        return Token(f"token-{self.count}", self.clock(), self.clock() + LIFE)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(clock: Clock) -> Source:
    return Source(clock)


@pytest.fixture
def cache(clock: Clock) -> TokenCache:
    return TokenCache(clock=clock)


def test_token_is_fetched_once_while_it_is_young(cache: TokenCache, source: Source, clock: Clock) -> None:
    assert cache.get("key", source).value == "token-1"
    clock.now += LIFE - 361
    assert cache.get("key", source).value == "token-1"
    assert source.count == 1


def test_token_is_renewed_before_it_ends(cache: TokenCache, source: Source, clock: Clock) -> None:
    cache.get("key", source)
    clock.now += LIFE - 119
    assert cache.get("key", source).value == "token-2"


def test_token_of_a_minute_is_used_for_half_of_it(cache: TokenCache, clock: Clock) -> None:
    tokens = iter([Token("short", clock(), clock() + 60), Token("next", clock(), clock() + 60)])
    assert cache.get("key", lambda: next(tokens)).value == "short"
    clock.now += 29
    assert cache.get("key", lambda: next(tokens)).value == "short"
    clock.now += 2
    assert cache.get("key", lambda: next(tokens)).value == "next"


def test_each_key_has_its_own_token(cache: TokenCache, source: Source) -> None:
    assert cache.get("one", source).value != cache.get("other", source).value
    assert source.count == 2


def test_failing_renewal_goes_on_with_the_token_that_holds(
    cache: TokenCache, source: Source, clock: Clock
) -> None:
    cache.get("key", source)
    source.error = RuntimeError("STS is away")
    clock.now += LIFE - 100
    assert cache.get("key", source).value == "token-1"
    assert cache.get("key", source).value == "token-1"
    assert source.count == 2  # the second call did not ask again within ten seconds
    clock.now += 11
    source.error = None
    assert cache.get("key", source).value == "token-3"


def test_ended_token_is_never_given(cache: TokenCache, source: Source, clock: Clock) -> None:
    cache.get("key", source)
    source.error = RuntimeError("STS is away")
    clock.now += LIFE - 29
    with pytest.raises(RuntimeError, match="STS is away"):
        cache.get("key", source)


def test_failure_is_not_remembered(cache: TokenCache, source: Source) -> None:
    source.error = RuntimeError("STS is away")
    with pytest.raises(RuntimeError):
        cache.get("key", source)
    source.error = None
    assert cache.get("key", source).value == "token-2"


def test_many_threads_make_one_fetch(cache: TokenCache, source: Source) -> None:
    started, release = threading.Event(), threading.Event()

    def slow() -> Token:
        started.set()
        assert release.wait(20)
        return source()

    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(cache.get, "key", slow) for _ in range(16)]
        assert started.wait(20)
        release.set()
        assert {future.result(20).value for future in waiting} == {"token-1"}
    assert source.count == 1


def test_threads_that_waited_for_a_failed_fetch_get_its_error(cache: TokenCache) -> None:
    release = threading.Event()

    def fails() -> Token:
        assert release.wait(20)
        raise RuntimeError("STS is away")

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(cache.get, "key", fails) for _ in range(4)]
        release.set()
        assert {str(future.exception(20)) for future in waiting} == {"STS is away"}


def test_nobody_waits_for_a_renewal(cache: TokenCache, source: Source, clock: Clock) -> None:
    cache.get("key", source)
    clock.now += LIFE - 100
    started, release = threading.Event(), threading.Event()

    def slow() -> Token:
        started.set()
        assert release.wait(20)
        return source()

    with ThreadPoolExecutor(1) as pool:
        renewal = pool.submit(cache.get, "key", slow)
        assert started.wait(20)
        assert cache.get("key", source).value == "token-1"
        release.set()
        assert renewal.result(20).value == "token-2"


def test_interrupted_fetch_is_taken_over_by_who_waits(cache: TokenCache, source: Source) -> None:
    started, release = threading.Event(), threading.Event()

    def interrupted() -> Token:
        started.set()
        assert release.wait(20)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "key", interrupted)
        assert started.wait(20)
        second = pool.submit(cache.get, "key", source)
        release.set()
        assert isinstance(first.exception(20), KeyboardInterrupt)
        assert second.result(20).value == "token-1"


def test_tokens_do_not_pile_up(cache: TokenCache, source: Source) -> None:
    for number in range(100):
        cache.get(number, source)
    assert len(cache._tokens) == 32
    assert cache.get(99, source).value == "token-100"


def test_token_is_not_in_its_representation() -> None:
    assert "secret" not in repr(Token("secret", 0, 1))


_FORK = """
import os, sys, threading, time
from mlflow_aws_auth.token_cache import Token, TokenCache
cache = TokenCache()
fresh = lambda value: Token(value, time.time(), time.time() + 900)
cache.get("held", lambda: fresh("of the parent"))
fetching, release = threading.Event(), threading.Event()
def slow():
    fetching.set()
    release.wait(20)
    return fresh("slow")
thread = threading.Thread(target=cache.get, args=("wanted", slow))
thread.start()
fetching.wait(20)
cache._lock.acquire()  # as another thread may hold it at the moment of the fork
child = os.fork()
if child == 0:
    no_fetch = lambda: sys.exit("fetched again")
    print(cache.get("held", no_fetch).value, "|", cache.get("wanted", lambda: fresh("of the child")).value)
    sys.stdout.flush()
    os._exit(0)
_, status = os.waitpid(child, 0)
cache._lock.release()
release.set()
thread.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_forked_child_keeps_tokens_and_waits_for_nobody() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORK], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "of the parent | of the child"
