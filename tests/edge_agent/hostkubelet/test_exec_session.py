"""Commands over the channels: bytes both ways, exit codes, terminals, back-pressure, and clients that leave."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from wsproto.events import CloseConnection, Ping, TextMessage

from edge_agent.hostkubelet import channels, command, exec_session
from tests.edge_agent.hostkubelet.conftest import POD, Box, children
from tests.support.channel_client import ERROR, STDIN, STDOUT, V4, ChannelClient, exec_target, upgrade_headers
from tests.support.waits import eventually, scaled_s
from tunnel.aio.http import websocket


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# ------------------------------------------------------------------------------------------------------------ the ends


async def test_output_and_errors_are_kept_apart(box: Box) -> None:
    assert await box.run("sh", "-c", "echo out; echo err >&2") == (0, b"out\n", b"err\n")


async def test_success_is_a_status_without_a_reason(box: Box) -> None:
    client = await box.exec("true")
    await client.finish()
    assert client.status() == {"metadata": {}, "status": "Success"}
    assert client.protocol == "v5.channel.k8s.io"


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -TERM $$", 143), ("kill -KILL $$", 137)])
async def test_exit_codes(box: Box, script: str, code: int) -> None:
    client = await box.exec("sh", "-c", script)
    assert await client.finish() == code
    assert client.status()["reason"] == "NonZeroExitCode"


async def test_on_a_terminal_too_it_is_said_why_nothing_started(box: Box) -> None:
    client = await box.exec("echo", "x" * 200_000, tty=True)
    assert await client.finish() == 126
    assert client.stdout == b'exec: "echo": argument list too long\r\n'


async def test_a_program_that_does_not_exist_or_cannot_run(box: Box, tmp_path: Path) -> None:
    code, _, stderr = await box.run("no-such-program")
    assert (code, stderr) == (127, b'exec: "no-such-program": executable file not found\n')
    (tmp_path / "plain").write_text("no program")
    code, _, stderr = await box.run(str(tmp_path / "plain"))
    assert code == 126
    assert b"permission denied" in stderr


async def test_no_message_is_longer_than_a_kubelets(box: Box) -> None:
    client = await box.exec("head", "-c", "200000", "/dev/zero")
    await client.finish()
    assert len(client.stdout) == 200_000
    assert max(client.message_bytes) == channels.MAX_MESSAGE_BYTES == 32 * 1024


async def test_arguments_arrive_as_they_are(box: Box) -> None:
    odd = ["", "a b", "'", '"', "$HOME", "*", "\n", "ä€", "-n", "%41", "&=?#+"]
    _, stdout, _ = await box.run("printf", "[%s]", *odd)
    assert stdout.decode() == "".join(f"[{part}]" for part in odd)


async def test_a_command_starts_quickly(box: Box) -> None:
    await box.run("true")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        await box.run("true")
        times.append(time.perf_counter() - start)
    assert min(times) < scaled_s(0.1)


async def test_the_last_bytes_come_before_the_status(box: Box) -> None:
    for _ in range(20):
        code, stdout, stderr = await box.run("sh", "-c", "head -c 300000 /dev/zero; printf end; printf end >&2; exit 5")
        assert (code, len(stdout), stdout[-3:], stderr) == (5, 300003, b"end", b"end")


async def test_processes_left_behind_with_the_pipes_do_not_hold_up_the_end(box: Box) -> None:
    start = time.perf_counter()
    code, stdout, _ = await box.run("sh", "-c", "sleep 60 & echo $!")
    assert code == 0
    assert time.perf_counter() - start < scaled_s(5)
    left = int(stdout)
    assert alive(left), "what a command leaves on purpose stays"
    os.kill(left, signal.SIGKILL)


async def test_a_noisy_process_left_behind_does_not_hold_up_the_end_either(box: Box) -> None:
    code, stdout, _ = await box.run("sh", "-c", "echo first; yes & echo $! >&2; exit 4")
    assert code == 4
    assert stdout.startswith((b"first\n", b"y\n"))


# --------------------------------------------------------------------------------------------------------------- input


async def test_input_and_its_end(box: Box) -> None:
    client = await box.exec("cat", stdin=True)
    await client.send(STDIN, b"hello ")
    assert await client.until(STDOUT, b"hello ")
    await client.send(STDIN, b"world")
    await client.end_stdin()
    assert await client.finish() == 0
    assert client.stdout == b"hello world"


async def test_without_stdin_the_input_is_empty(box: Box) -> None:
    assert (await box.run("cat"))[0] == 0


async def test_text_messages_and_messages_in_parts_are_input(box: Box) -> None:
    client = await box.exec("head", "-c", "12", stdin=True)
    await client.send_event(TextMessage(data="\x00täxt "))
    await client.send_event(TextMessage(data="\x00in ", message_finished=False))
    await client.send_event(TextMessage(data="par", message_finished=True))
    assert await client.finish() == 0
    assert client.stdout == "täxt in par".encode()


async def test_a_large_copy_arrives_whole_both_ways(box: Box) -> None:
    data = os.urandom(1 << 20) * 8
    client = await box.exec("sh", "-c", "tee /dev/stderr | sha256sum", stdin=True)

    async def feed() -> None:
        for at in range(0, len(data), 100_000):
            await client.send(STDIN, data[at : at + 100_000])
        await client.end_stdin()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(feed())
        assert await client.finish() == 0
    assert client.stderr == data
    assert client.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_tar_over_exec_copies_a_tree(box: Box, tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").write_bytes(os.urandom(300_000))
    code, archive, _ = await box.run("tar", "cf", "-", "-C", str(tmp_path / "from"), "file")
    assert code == 0
    (tmp_path / "to").mkdir()
    client = await box.exec("tar", "xmf", "-", "-C", str(tmp_path / "to"), stdin=True)
    await client.send(STDIN, archive)
    await client.end_stdin()
    assert await client.finish() == 0
    assert (tmp_path / "to" / "file").read_bytes() == (tmp_path / "from" / "file").read_bytes()


async def test_a_command_that_reads_nothing_ends_all_the_same(box: Box) -> None:
    client = await box.exec("sh", "-c", "exec <&-; sleep 0.2; echo done", stdin=True)

    async def feed() -> None:
        for _ in range(100):
            await client.send(STDIN, bytes(50_000))

    async with asyncio.TaskGroup() as tasks:
        feeder = tasks.create_task(feed())
        assert await client.finish() == 0
        feeder.cancel()
    assert client.stdout == b"done\n"


# ------------------------------------------------------------------------------------------------------- back-pressure


async def test_a_client_that_does_not_read_stops_the_command(box: Box) -> None:
    before = psutil.Process().memory_info().rss
    client = await box.exec("dd", "if=/dev/zero", "bs=64K", "count=16384", "status=none")
    await client.until(STDOUT, b"\0")
    (dd,) = children()
    # Stuck in its write: the same position twice, far from the end of the gigabyte.
    position = -1
    while position != (position := dd.io_counters().write_chars):
        await asyncio.sleep(0.3)
    assert 64 << 10 < position < 2 << 20
    assert psutil.Process().memory_info().rss - before < 16 << 20
    assert dd.is_running()


async def test_a_quarter_of_a_gigabyte_flows_in_bounded_memory(box: Box) -> None:
    before = psutil.Process().memory_info().rss
    client = await box.exec("head", "-c", str(256 << 20), "/dev/zero")
    total = 0
    while await client.receive():
        total += len(client.received[STDOUT])
        client.received[STDOUT].clear()
    assert total == 256 << 20
    assert client.exit_code() == 0
    assert psutil.Process().memory_info().rss - before < 64 << 20


async def test_a_client_that_sends_without_reading_is_stopped_too(box: Box) -> None:
    client = await box.exec("sleep", "60", stdin=True)
    sent = 0

    async def send() -> None:
        nonlocal sent
        while True:
            await client.send(STDIN, bytes(60_000))
            sent += 60_000

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await send()
    assert 256 << 10 < sent < 2 << 20


async def test_a_resize_gets_past_input_that_waits(box: Box) -> None:
    client = await box.exec(
        "sh", "-c", "stty raw -echo; trap 'stty size; exit 0' WINCH; echo ready; sleep 60 & wait", tty=True, stdin=True
    )
    await client.until(STDOUT, b"ready")
    await client.send(STDIN, b"x" * 100_000)
    await client.resize(99, 11)
    assert await client.finish() == 0
    assert b"11 99" in client.stdout


# ----------------------------------------------------------------------------------------------------------- terminals


async def test_a_terminal_is_the_controlling_one(box: Box) -> None:
    client = await box.exec(
        "sh", "-c", "tty; echo to-tty >/dev/tty; echo $TERM; ps -o tpgid= -p $$; echo $$; exit 7", tty=True
    )
    assert await client.finish() == 7
    name, to_tty, term, foreground, pid = client.stdout.decode().split()
    assert name.startswith("/dev/pts/")
    assert (to_tty, term, foreground) == ("to-tty", "xterm", pid)


async def test_a_terminal_starts_with_the_size_of_the_client(box: Box) -> None:
    client = await box.exec("stty", "size", stdin=True, tty=True)
    await client.resize(132, 43)
    assert await client.finish() == 0
    assert client.stdout == b"43 132\r\n"


async def test_a_client_without_a_size_gets_the_usual_one(box: Box) -> None:
    client = await box.exec("stty", "size", tty=True)
    assert await client.finish() == 0
    assert client.stdout == b"24 80\r\n"


async def test_sizes_that_make_no_sense_change_nothing(box: Box) -> None:
    client = await box.exec("sh", "-c", "read line; stty size", stdin=True, tty=True)
    for size in (b"", b"{}", b"[]", b"null", b'{"Width":"x","Height":1}', b'{"Width":1e999,"Height":1}', b"x" * 5000):
        await client.send(4, size)
    await client.send(STDIN, b"\n")
    assert await client.finish() == 0
    assert client.stdout.endswith(b"24 80\r\n")


async def test_keys_are_signals(box: Box) -> None:
    client = await box.exec("sleep", "60", stdin=True, tty=True)
    # Not earlier: a shell loses a signal that comes while it starts a program.
    await eventually(lambda: [child.name() for child in children()] == ["sleep"], 10, "it sleeps")
    await client.send(STDIN, b"\x03")
    assert await client.finish() == 130


async def test_a_shell_session(box: Box) -> None:
    client = await box.exec("sh", stdin=True, tty=True)
    await client.send(STDIN, b"echo $((6*7))\n")
    await client.until(STDOUT, b"42\r\n")
    await client.send(STDIN, b"exit 9\n")
    assert await client.finish() == 9


async def test_the_end_of_input_on_a_terminal(box: Box) -> None:
    client = await box.exec("cat", stdin=True, tty=True)
    await client.send(STDIN, b"line\n")
    await client.until(STDOUT, b"line\r\nline\r\n")
    await client.end_stdin()
    assert await client.finish() == 0


async def test_a_terminal_loses_nothing_at_the_end(box: Box) -> None:
    for _ in range(20):
        client = await box.exec("sh", "-c", "head -c 50000 /dev/zero | tr '\\0' x; printf end", tty=True)
        assert await client.finish() == 0
        assert len(client.stdout) == 50003
        assert client.stdout.endswith(b"end")


async def test_a_program_not_found_on_a_terminal(box: Box) -> None:
    client = await box.exec("no-such-program", tty=True)
    assert await client.finish() == 127
    assert b"no-such-program: not found" in client.stdout


# -------------------------------------------------------------------------------------------------------- client leaves


async def test_a_client_that_resets_ends_the_whole_group(box: Box) -> None:
    client = await box.exec("sh", "-c", "sleep 60 & echo $! $$; wait")
    pids = [int(pid) for pid in (await client.until(STDOUT, b"\n")).split()]
    client.duplex.reset()
    await eventually(lambda: not any(map(alive, pids)), 10, "the group is gone")


@pytest.mark.parametrize("tty", [False, True])
async def test_a_client_that_ends_hangs_up(box: Box, tmp_path: Path, tty: bool) -> None:
    script = f"trap 'echo hangup > {tmp_path}/saw; exit' HUP; echo ready; while :; do sleep 0.05; done"
    client = await box.exec("sh", "-c", script, tty=tty)
    await client.until(STDOUT, b"ready")
    await client.duplex.aclose()
    await eventually(lambda: not children(), 10, "the command is gone")
    assert (tmp_path / "saw").read_text() == "hangup\n"


async def test_a_websocket_close_hangs_up(box: Box) -> None:
    client = await box.exec("sleep", "60")
    await client.receive()
    await client.send_event(CloseConnection(code=1000))
    await client.duplex.write_eof()
    await eventually(lambda: not children(), 10, "the command is gone")
    client.duplex.reset()


async def test_one_that_ignores_the_hangup_is_killed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "HANGUP_GRACE_S", 0.3)
    client = await box.exec(
        "sh", "-c", "trap '' HUP TERM; sh -c 'trap \"\" HUP; echo $$; while :; do sleep 0.1; done' & wait"
    )
    pid = int(await client.until(STDOUT, b"\n"))
    start = time.perf_counter()
    client.duplex.reset()
    await eventually(lambda: not alive(pid) and not children(), 10, "both are gone")
    assert time.perf_counter() - start > 0.25


async def test_a_stopped_command_is_woken_to_hang_up(box: Box) -> None:
    client = await box.exec("sh", "-c", "echo $$; kill -STOP $$")
    pid = int(await client.until(STDOUT, b"\n"))
    await eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 10, "it has stopped")
    start = time.perf_counter()
    client.duplex.reset()
    await eventually(lambda: not children(), 10, "the command is gone")
    assert time.perf_counter() - start < scaled_s(3)


async def test_a_cancelled_connection_ends_its_command(box: Box) -> None:
    client = await box.exec("sleep", "60")
    await client.receive()
    await eventually(lambda: bool(children()), 10, "the command runs")
    box.serving.cancel()
    await eventually(lambda: not children(), 10, "the command is gone")


async def test_stopping_the_kubelet_ends_all_commands(box: Box) -> None:
    clients = [await box.exec("sleep", "60", tty=tty) for tty in (False, True)]
    for client in clients:
        await client.receive()
    await eventually(lambda: len(children()) == 2, 10, "both run")
    await box.kubelet.aclose()
    assert not children()
    for client in clients:
        assert await client.finish() == 128 + signal.SIGHUP


# ---------------------------------------------------------------------------------------------------------- the socket


async def test_v4_and_the_order_of_preference(box: Box) -> None:
    for offer, chosen in ((V4, V4), (f"{V4}, v5.channel.k8s.io", "v5.channel.k8s.io"), (f"channel.k8s.io,{V4}", V4)):
        client = await ChannelClient.open(box.connect(), exec_target(POD, ["true"]), upgrade_headers(offer))
        assert await client.finish() == 0
        assert client.protocol == chosen


async def test_pings_are_answered_while_a_command_is_silent(box: Box) -> None:
    client = await box.exec("sleep", "60")
    await client.receive()
    await client.send_event(Ping(payload=b"one"))
    while client.pongs != [b"one"]:
        assert await client.receive()
    client.duplex.reset()


async def test_a_flood_of_pings_costs_no_memory(box: Box) -> None:
    client = await box.exec("sleep", "60")
    for _ in range(20_000):  # far beyond what the way back can hold in pongs
        await client.send_event(Ping(payload=b"x" * 100))
    await client.send_event(Ping(payload=b"last"))
    while b"last" not in client.pongs:
        assert await client.receive()
    client.duplex.reset()


async def test_an_idle_shell_is_kept_alive(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PING_INTERVAL_S", 0.05)
    client = await box.exec("sleep", "60")
    while client.pings < 3:
        assert await client.receive()
    client.duplex.reset()


async def test_nonsense_on_the_socket_ends_the_command(box: Box) -> None:
    client = await box.exec("sleep", "60")
    await client.receive()
    await client.duplex.write(b"\xff" * 100)
    await eventually(lambda: not children(), 10, "the command is gone")
    client.duplex.reset()


async def test_a_client_that_does_not_answer_the_close_is_not_waited_for(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_session, "CLOSE_WAIT_S", 0.1)
    client = await box.exec("true")
    await client.until(ERROR, b"Success")
    async with asyncio.timeout(5):
        await box.serving


# -------------------------------------------------------------------------------------------------------------- many


async def test_a_hundred_at_once(box: Box) -> None:
    async def one(number: int) -> None:
        client = await box.exec("sh", "-c", f"cat; exit {number}", stdin=True)
        await client.send(STDIN, str(number).encode() * 1000)
        await client.end_stdin()
        assert await client.finish() == number
        assert client.stdout == str(number).encode() * 1000
        await client.duplex.aclose()

    async with asyncio.TaskGroup() as tasks:
        for number in range(100):
            tasks.create_task(one(number))


async def test_the_status_is_what_kubectl_reads(box: Box) -> None:
    client = await box.exec("sh", "-c", "exit 3")
    await client.finish()
    assert json.loads(client.received[ERROR]) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "command terminated with non-zero exit code: 3",
        "reason": "NonZeroExitCode",
        "code": 500,
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    }
