"""What every test runs under: event loops, the watch for blocking calls and leaks, and time limits.

`tests/aio` runs each coroutine test once on asyncio and once on uvloop, the daemons' own (`tests/edge_agent`,
`tests/cloud_server`) on uvloop, as they do; blocking the loop from our own code is an error there, and so is a task or
file descriptor left at the end. Tests of virtual time (`@pytest.mark.looptime`) run on asyncio alone. A test that must
do otherwise says why with `@pytest.mark.may_block("reason")` or `@pytest.mark.may_leak("reason")`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import hypothesis
import pytest
import uvloop
from blockbuster import blockbuster_ctx

from tests.support import waits
from tests.support.leaks import describe, open_descriptors, unfinished_tasks
from tunnel.aio.carriers.environment import prepare_grpc

if TYPE_CHECKING:
    from tests.e2e.cluster.tunnelled import Tunnelled

TESTS = Path(__file__).parent
SHELLS = ("aio", "edge_agent", "cloud_server")
DAEMONS = ("edge_agent", "cloud_server")
"""They run on uvloop and on nothing else; what they stand on, `tunnel/aio`, is tested on both, but for HTTP, which uses
no more of a loop than connections do.
"""
OUR_PACKAGES = ("tunnel", "edge_agent", "cloud_server")
LOOP_SHARE = 0.9
"""How much of a test's time limit a coroutine has before its own loop cancels it."""
SETTLE_S = 3.0
"""How long what was told to close may take: gRPC closes its sockets in threads of its own."""


@runtime_checkable
class RunsDaemons(Protocol):
    """What a fixture hands out that has daemons of ours running."""

    def logs(self) -> str:
        """The last lines of each."""
        ...


# How long an example takes is the machine's business: a busy one is no finding.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Say that there is no event loop yet, and prepare gRPC as the daemons do before they import it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background job, whose children inherit that
        signal.signal(signal.SIGINT, signal.default_int_handler)
    prepare_grpc()
    # pytest-asyncio asks for the current one, and Python 3.11 would make it and never close it.
    asyncio.set_event_loop(None)


def _folder(item: pytest.Item) -> str:
    """The folder of `tests/` that the test lives in, or an empty string."""
    relative = item.path.relative_to(TESTS) if item.path.is_relative_to(TESTS) else Path()
    return relative.parts[0] if len(relative.parts) > 1 else ""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Which event loops a coroutine test runs on."""
    if _folder(item) in SHELLS and item.get_closest_marker("looptime") is None:
        if _folder(item) in DAEMONS or item.path.is_relative_to(TESTS / "aio" / "http"):
            return {"uvloop": uvloop.new_event_loop}
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the end-to-end tests, and stretch the time limits on a slow machine."""
    default_s = float(config.getini("timeout"))
    for item in items:
        if _folder(item) == "e2e":
            item.add_marker("e2e")
        marker = item.get_closest_marker("timeout")
        limit_s = waits.scaled_s(float(marker.args[0]) if marker and marker.args else default_s)
        if waits.FACTOR != 1:
            item.add_marker(pytest.mark.timeout(limit_s))
        if isinstance(item, pytest.Function) and _in_real_time(item):
            item.obj = _limited(item.obj, LOOP_SHARE * limit_s)


def _in_real_time(item: pytest.Function) -> bool:
    return inspect.iscoroutinefunction(item.obj) and item.get_closest_marker("looptime") is None


def _limited(test: Callable[..., Awaitable[None]], limit_s: float) -> Callable[..., Awaitable[None]]:
    """The test with a time limit that the event loop keeps.

    pytest-timeout's signal does not wake a uvloop that waits, and where it does, the test's task is left as it is.
    """

    @functools.wraps(test)
    async def limited(*args: object, **kwargs: object) -> None:
        async with asyncio.timeout(limit_s):
            await test(*args, **kwargs)

    return limited


@pytest.fixture(autouse=True)
def shell_watch(request: pytest.FixtureRequest) -> Iterator[None]:
    """Blocking calls and leaks are errors in the coroutine tests of the shells."""
    if _folder(request.node) not in SHELLS or not inspect.iscoroutinefunction(request.function):
        yield
        return
    if request.node.get_closest_marker("may_leak") is None:
        request.getfixturevalue("leak_watch")
    if request.node.get_closest_marker("may_block") is not None:
        yield
        return
    with blockbuster_ctx(scanned_modules=OUR_PACKAGES) as watch:
        for name, function in watch.functions.items():
            if name.startswith("sqlite3."):  # reading what another process wrote just now: microseconds, never a wait
                function.can_block_in("cloud_server/trust/database.py", {"changes"})
        yield


@pytest.fixture
async def leak_watch() -> AsyncIterator[None]:
    """Fails the test when it ends with a task still running or a file descriptor still open."""
    before = open_descriptors()
    yield
    deadline = waits.Deadline(SETTLE_S)
    while (left := [*unfinished_tasks(), *describe(open_descriptors() - before)]) and not deadline.passed():
        await asyncio.sleep(0.01)
    assert not left, f"left behind by this test: {', '.join(left)}"


@pytest.fixture(scope="session")
def kube() -> Iterator[Tunnelled]:
    """A Kubernetes whose only way to its nodes is the tunnel, for tests that leave it as they found it."""
    from tests.e2e.cluster import requirements
    from tests.e2e.cluster.tunnelled import tunnelled

    if reason := requirements.missing():
        pytest.skip(reason)
    with tunnelled() as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the daemons' logs beside each failure."""
    report = yield
    if report.failed and report.when == "call":
        for value in getattr(item, "funcargs", {}).values():
            # A site and a tunnel hold a cluster of daemons; whatever runs daemons can tell their logs.
            made = getattr(value, "cluster", value)
            if isinstance(made, RunsDaemons):
                report.sections.append(("logs of the daemons", made.logs()))
    return report
