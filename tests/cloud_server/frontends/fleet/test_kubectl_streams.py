"""A stock kubectl's exec, cp and logs through the front end, over real sessions, to the real built-in kubelet."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from tests.cloud_server.frontends.fleet.conftest import LOG_LINES
from tests.support.fleet import Fleet
from tests.support.kubectl import kubectl, start_kubectl
from tests.support.waits import eventually, scaled_s
from tunnel.core.wire.names import KUBELET

pytestmark = pytest.mark.timeout(120)


async def test_exec_gives_output_errors_and_the_exit_code(fleet: Fleet) -> None:
    fleet.doors.records.clear()
    ran = await kubectl(fleet.kubeconfig, "exec", "box-7", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    await eventually(lambda: fleet.doors.records.of("end"), what="the record of the end")
    assert (ran.code, ran.out) == (7, "out\n")
    assert ran.err.startswith("err\n")
    assert fleet.opener.opened[-1] == ("box-7", KUBELET, "ann")
    (opened,), (ended,) = fleet.doors.records.of("open"), fleet.doors.records.of("end")
    assert (opened["action"], opened["who"], opened["agent"], opened["pod"]) == (
        "exec",
        "ann",
        "box-7",
        "default/box-7",
    )
    assert opened["container"] == "host"
    assert opened["command"] == ["sh", "-c", "echo out; echo err >&2; exit 7"]
    assert opened["proof"].startswith("certificate:")
    # kubectl hangs up once it has the exit code, before our last bytes when the processor is busy.
    assert ended["reason"] in ("closed", "connection_reset")
    assert ended["trace_id"] == opened["trace_id"]
    assert ended["bytes_from_agent"] > 0


async def test_exec_with_stdin_moves_every_byte_both_ways(fleet: Fleet) -> None:
    data = os.urandom(3_000_000)
    process = await start_kubectl(fleet.kubeconfig, "exec", "-i", "box-7", "-c", "host", "--", "cat")
    async with asyncio.timeout(scaled_s(60)):
        out, err = await process.communicate(data)
    assert (process.returncode, err) == (0, b"")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


async def test_exec_speaks_at_once_and_with_many_words(fleet: Fleet) -> None:
    words = [f"word {number} & ü/?=%" for number in range(50)]
    ran = await kubectl(fleet.kubeconfig, "exec", "box-7", "--", "printf", "%s\n", *words)
    assert (ran.code, ran.out.splitlines(), ran.err) == (0, words, "")


async def test_a_lot_of_output_right_behind_the_upgrade_is_whole(fleet: Fleet) -> None:
    ran = await kubectl(fleet.kubeconfig, "exec", "box-7", "--", "seq", "1", "200000")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "".join(f"{number}\n" for number in range(1, 200_001))


async def test_cp_both_ways(fleet: Fleet, tmp_path: Path) -> None:
    source, there, back = tmp_path / "source.bin", tmp_path / "there.bin", tmp_path / "back.bin"
    source.write_bytes(os.urandom(2_000_000))
    up = await kubectl(fleet.kubeconfig, "cp", str(source), f"box-7:{there}")
    assert (up.code, up.err) == (0, "")
    down = await kubectl(fleet.kubeconfig, "cp", f"box-7:{there}", str(back))
    assert down.code == 0, down
    assert source.read_bytes() == there.read_bytes() == back.read_bytes()


async def test_logs_whole_and_in_part(fleet: Fleet) -> None:
    whole = await kubectl(fleet.kubeconfig, "logs", "box-7", "-c", "app.log")
    assert (whole.code, whole.out) == (0, "".join(f"line {number}\n" for number in range(LOG_LINES)))
    tail = await kubectl(fleet.kubeconfig, "logs", "box-7", "-c", "app.log", "--tail=2")
    assert tail.out == f"line {LOG_LINES - 2}\nline {LOG_LINES - 1}\n"


async def test_logs_follow_until_the_reader_goes_and_then_end_at_the_agent(fleet: Fleet, log_file: Path) -> None:
    process = await start_kubectl(fleet.kubeconfig, "logs", "-f", "box-7", "-c", "app.log", "--tail=1")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(scaled_s(20)):
            assert await process.stdout.readline() == f"line {LOG_LINES - 1}\n".encode()
            with log_file.open("a") as file:
                file.write("more\n")
            assert await process.stdout.readline() == b"more\n"
        process.kill()
        await eventually(lambda: fleet.doors.records.of("end"), 20, "the record of the end")
        (ended,) = fleet.doors.records.of("end")
        assert (ended["reason"], ended["text"]) == ("cancelled", "the client gave up")
        await eventually(lambda: not fleet.opener.pairs["box-7"].agent.statistics().streams, 20, "no stream left")
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_log_that_breaks_does_not_end_as_if_it_were_whole(fleet: Fleet) -> None:
    process = await start_kubectl(fleet.kubeconfig, "logs", "-f", "box-7", "-c", "app.log", "--tail=1")
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(scaled_s(20)):
        await process.stdout.readline()
        await fleet.opener.pairs["box-7"].server.aclose()
        assert b"rror" in await process.stderr.read()
        assert await process.wait() == 1
    await process.communicate()


@pytest.mark.parametrize(
    ("arguments", "errors"),
    [
        (["exec", "box-8", "--", "id"], ["agent box-8 is away"]),
        (["logs", "box-8"], ["Error from server (ServiceUnavailable): agent box-8 is away"]),
        (["exec", "box-9", "--", "id"], ["agent box-9 does not offer exec and logs"]),
        (["exec", "nope", "--", "id"], ['pods "nope" not found']),
        (["exec", "box-7", "-c", "nope", "--", "id"], ["container nope is not valid for pod box-7"]),
        (["exec", "box-7", "-c", "app.log", "--", "id"], ["box-7", "commands run on the box itself only"]),
        (["logs", "box-7", "-c", "nope"], ["container nope is not valid for pod box-7"]),
        (["attach", "box-7"], ["box-7", "nothing on a plain box can be attached to"]),
        (["port-forward", "box-7", ":80"], ["box-7", "forwards no ports"]),
    ],
)
async def test_what_cannot_be_done_is_said_clearly(fleet: Fleet, arguments: list[str], errors: list[str]) -> None:
    ran = await kubectl(fleet.kubeconfig, *arguments)
    assert ran.code == 1
    for error in errors:
        assert error in ran.err


async def test_an_agent_that_goes_during_exec_ends_it_as_an_error(fleet: Fleet) -> None:
    process = await start_kubectl(fleet.kubeconfig, "exec", "-i", "box-7", "--", "cat")
    assert process.stdout is not None
    async with asyncio.timeout(scaled_s(20)):
        assert process.stdin is not None
        process.stdin.write(b"hello\n")
        assert await process.stdout.readline() == b"hello\n"
        await fleet.opener.pairs["box-7"].server.aclose()
        _, err = await process.communicate()
    assert process.returncode == 1
    assert b"rror" in err
