"""The API as a whole: what is listed, what is refused and how, and what a stopping kubelet does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
from pathlib import Path
from typing import NoReturn

import pytest

from edge_agent.hostkubelet.account import AccountLookup, find_account
from edge_agent.hostkubelet.channels import Channel
from edge_agent.hostkubelet.limits import KubeletLimits
from edge_agent.hostkubelet.settings import HostSettings, SettingsError
from tests.edge_agent.hostkubelet.conftest import POD, TRACE_ID, Box, serving
from tests.support.channel_client import ChannelClient, UpgradeRefused, exec_target, upgrade_headers
from tests.support.duplex_pair import MemoryDuplex
from tests.support.waits import eventually
from tunnel.aio.http.http1 import ClientConnection
from tunnel.aio.process.parts import PartFailed
from tunnel.aio.sockets.duplex import Duplex
from tunnel.core.wire.errors import Code, StreamReset

ME = pwd.getpwuid(os.geteuid()).pw_name


async def refusal(box: Box, target: str, headers: list[tuple[str, str]] | None = None) -> tuple[int, str]:
    """How an upgrade is refused."""
    with pytest.raises(UpgradeRefused) as raised:
        await ChannelClient.open(box.connect(), target, headers)
    return raised.value.status, raised.value.message


async def message(box: Box, target: str) -> tuple[int, str]:
    """How a plain request is refused."""
    status, headers, body = await box.get(target)
    answer = json.loads(body)
    assert headers.get("content-type") == "application/json"
    assert (answer["kind"], answer["apiVersion"], answer["status"], answer["code"]) == (
        "Status",
        "v1",
        "Failure",
        status,
    )
    return status, answer["message"]


# ------------------------------------------------------------------------------------------------------------- listing


async def test_health(box: Box) -> None:
    status, _, body = await box.get("/healthz")
    assert (status, body) == (200, b"ok")


async def test_pods(tmp_path: Path) -> None:
    settings = HostSettings(
        exec=True, user=ME, units=["nginx.service"], files=[Path("/etc/hostname"), Path("/var/log/none.log")]
    )
    async with serving(settings, systemctl="/no/systemctl") as box:
        status, _, body = await box.get("/pods")
    assert status == 200
    pods = json.loads(body)
    assert (pods["kind"], pods["apiVersion"]) == ("PodList", "v1")
    (pod,) = pods["items"]
    assert (pod["metadata"]["name"], pod["metadata"]["namespace"]) == (POD, "default")
    states = {container["name"]: container["state"] for container in pod["status"]["containerStatuses"]}
    assert [*states] == ["host", "nginx.service", "hostname", "none.log"]
    assert [*states["host"]] == [*states["hostname"]] == ["running"]
    assert states["nginx.service"]["waiting"]["reason"] == "Unknown"
    assert states["none.log"]["waiting"]["reason"] == "FileNotFound"


async def test_several_requests_on_one_connection(box: Box) -> None:
    http = ClientConnection(box.connect())
    for target, status in (("/healthz", 200), ("/nothing", 404), ("/pods", 200)):
        response = await http.request("GET", target, [("host", "kubelet")])
        await http.read_body(1 << 16)
        assert response.status == status


# ------------------------------------------------------------------------------------------------------------- refusals


async def test_without_permission_no_command_runs(tmp_path: Path) -> None:
    async with serving(HostSettings()) as box:
        status, text = await refusal(box, exec_target(POD, ["touch", str(tmp_path / "made")]))
        assert (await box.get("/pods"))[0] == 200
    assert status == 403
    assert text == "this box allows no commands: its owner can set exec = true in [host] of edge-agent.toml"
    assert not (tmp_path / "made").exists()


async def test_a_user_that_does_not_exist_yet_costs_commands_only() -> None:
    settings = HostSettings(exec=True, user="no-such-user", files=[Path("/etc/hostname")])
    async with serving(settings) as box:
        status, text = await refusal(box, exec_target(POD, ["true"]))
        (pod,) = json.loads((await box.get("/pods"))[2])["items"]
        assert (await box.get(f"/containerLogs/default/{POD}/hostname"))[0] == 200
    fault = 'user: there is no user "no-such-user" on this box; create it or name another one'
    assert (status, text) == (503, f"this box runs no commands now: [host] {fault}")
    host, file = pod["status"]["containerStatuses"]
    assert host["state"]["waiting"] == {"reason": "AccountUnusable", "message": fault}
    assert file["ready"]


async def test_a_user_is_found_when_it_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = HostSettings(exec=True, user="no-such-user")
    async with serving(settings) as box:
        with pytest.raises(PartFailed, match="no-such-user"):
            await box.kubelet.find_accounts()
        me = await asyncio.to_thread(find_account, ME, "")
        monkeypatch.setattr("edge_agent.hostkubelet.account.find_account", lambda *_names: me)
        await box.kubelet.find_accounts()
        assert await box.run("echo", "hello") == (0, b"hello\n", b"")


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        (exec_target("other", ["true"]), 404, 'pods "other" not found'),
        ("/exec/kube-system/box-7/host?command=true&output=1", 404, 'in the namespace "kube-system"'),
        (
            exec_target(POD, ["true"], container="nginx.service"),
            400,
            "commands run on the box itself only: use -c host",
        ),
        (exec_target(POD, ["true"], container="missing"), 404, 'no container "missing", only: host, nginx.service'),
        (exec_target(POD, []), 400, "a command must be given"),
        (exec_target(POD, [""]), 400, "a command must be given"),
        (exec_target(POD, ["echo", "a\0b"]), 400, "a command must be given"),
        (f"/exec/default/{POD}/host?command=true", 400, "at least one of stdin, stdout and stderr"),
        (f"/attach/default/{POD}/host?output=1", 400, "nothing on a plain box can be attached to"),
        (f"/portForward/default/{POD}", 403, "this box forwards no ports"),
        ("/", 404, "serves /pods, /exec, /portForward, /containerLogs, /recordings, /stats/summary and /healthz"),
        ("/exec", 404, "serves /pods"),
        (f"/run/default/{POD}/host", 404, "serves /pods"),
    ],
)
async def test_refusals(target: str, status: int, text: str) -> None:
    async with serving(HostSettings(exec=True, user=ME, units=["nginx.service"])) as box:
        got_status, got_text = await refusal(box, target)
    assert got_status == status
    assert text in got_text


@pytest.mark.parametrize(
    ("container", "status"),
    [("other.service", 404), ("%2Fetc%2Fpasswd", 404), ("..%2F..%2Fetc%2Fpasswd", 404), ("passwd", 404)],
)
async def test_only_what_is_configured_can_be_read(container: str, status: int) -> None:
    async with serving(HostSettings(exec=True, user=ME, units=["nginx.service"])) as box:
        got_status, text = await message(box, f"/containerLogs/default/{POD}/{container}")
    assert got_status == status
    assert "root:" not in text


async def test_the_logs_of_a_box_without_permission_for_commands() -> None:
    async with serving(HostSettings(files=[Path("/etc/hostname")])) as box:
        assert (await box.get(f"/containerLogs/default/{POD}/hostname"))[2] == Path("/etc/hostname").read_bytes()
        assert (await message(box, f"/containerLogs/default/{POD}/host"))[0] == 403


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (
            [("host", "k"), ("connection", "Upgrade"), ("upgrade", "SPDY/3.1")],
            "SPDY is not supported here, only WebSocket",
        ),
        ([("host", "k")], "needs a WebSocket upgrade"),
        (upgrade_headers("v3.channel.k8s.io,base64.channel.k8s.io"), "none of the WebSocket protocols offered"),
        ([item for item in upgrade_headers() if item[0] != "sec-websocket-key"], "must have a Sec-WebSocket-Key"),
    ],
)
async def test_upgrades_that_are_refused(box: Box, headers: list[tuple[str, str]], text: str) -> None:
    status, got = await refusal(box, exec_target(POD, ["true"]), headers)
    assert status == 400
    assert text in got


async def test_the_reason_comes_before_the_protocol(box: Box) -> None:
    """A client that falls back to SPDY must still read what is wrong."""
    spdy = [("host", "k"), ("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]
    assert (await refusal(box, exec_target("other", ["true"]), spdy))[0] == 404


async def test_too_many_commands(box: Box) -> None:
    box.kubelet.limit(KubeletLimits(commands=2))
    running = [await box.exec("cat", stdin=True) for _ in range(2)]
    status, text = await refusal(box, exec_target(POD, ["true"]))
    assert status == 429
    assert "try again when some have ended" in text
    for client in running:
        await client.end_stdin()
        await client.finish()
        await client.duplex.aclose()
    assert await eventually_runs(box)


async def eventually_runs(box: Box) -> bool:
    for _ in range(100):
        try:
            return (await box.run("true"))[0] == 0
        except UpgradeRefused:
            await asyncio.sleep(0.02)
    return False


async def test_too_many_logs() -> None:
    async with serving(HostSettings(files=[Path("/etc/hostname")])) as box:
        box.kubelet.limit(KubeletLimits(logs=1))
        target = f"/containerLogs/default/{POD}/hostname"
        http = ClientConnection(box.connect())
        await http.request("GET", f"{target}?follow=true", [("host", "kubelet")])
        assert (await message(box, target))[0] == 429


async def test_the_host_has_an_empty_log(box: Box) -> None:
    status, _, body = await box.get(f"/containerLogs/default/{POD}/host?timestamps=true&sinceSeconds=60&tailLines=5")
    assert (status, body) == (200, b"")


async def test_the_empty_log_is_followed_until_the_client_goes(box: Box) -> None:
    http = ClientConnection(duplex := box.connect())
    response = await http.request("GET", f"/containerLogs/default/{POD}/host?follow=true", [("host", "kubelet")])
    assert response.status == 200
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await http.read_chunk()
    await duplex.aclose()
    async with asyncio.timeout(5):
        await box.serving


# ------------------------------------------------------------------------------------------------------ audit, stopping


WHO = {
    "trace_id": TRACE_ID, "frontend": "kubelet", "kind": "user", "who": "ann", "proof": "", "action": "exec",
    "container": "host",
}  # fmt: skip
RAN = {**WHO, "account": ME}


async def test_every_command_leaves_a_start_and_an_end(box: Box) -> None:
    long = "echo hello; exit 3 #" + "x" * 2000
    await box.run("sh", "-c", long)
    client = await box.exec("sleep", "60")
    begun = box.records.of("open")[-1]
    assert (begun["event"], begun["command"]) == ("open", ["sleep", "60"])
    client.duplex.reset()
    await eventually(lambda: len(box.records.lines) == 4, what="both ends")
    await refusal(box, exec_target(POD, ["rm", "-r"], container="missing"))
    start, (done, left), (refused,) = box.records.of("open")[0], box.records.of("end"), box.records.of("refused")
    command = ["sh", "-c", long[:1020] + "... [1000 bytes more]"]
    assert start == {"event": "open", **RAN, "command": command}
    assert done.pop("seconds") >= 0
    assert done == {
        "event": "end", **RAN, "command": command, "exit_code": 3, "bytes_to_agent": 0, "bytes_from_agent": 6,
        "reason": "exited",
    }  # fmt: skip
    assert (left["exit_code"], left["reason"]) == (None, "client gone")
    assert (refused["event"], refused["command"]) == ("refused", ["rm", "-r"])
    assert refused["reason"] == 'refused: this box offers no container "missing", only: host'


async def test_every_log_leaves_a_start_and_an_end(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("one\ntwo\n")
    async with serving(HostSettings(files=[log])) as box:
        assert (await box.get(f"/containerLogs/default/{POD}/app.log"))[0] == 200
        await box.get(f"/containerLogs/default/{POD}/missing")
        following = await followed(box)
        following.reset()
        await eventually(lambda: len(box.records.lines) == 5, what="the record of the log that was followed")
    start, (whole, ended), (refused,) = box.records.of("open")[0], box.records.of("end"), box.records.of("refused")
    assert (start["event"], start["action"], start["container"]) == ("open", "log", "app.log")
    assert (whole["event"], whole["bytes_from_agent"], whole["reason"]) == ("end", 8, "closed")
    assert "command" not in whole
    assert refused["event"] == "refused"
    assert refused["reason"].startswith('refused: this box offers no container "missing"')
    assert (ended["bytes_from_agent"], ended["reason"]) == (8, "client gone")


async def followed(box: Box) -> MemoryDuplex:
    """A client that has read the log so far and waits for more."""
    following = box.connect()
    head = f"GET /containerLogs/default/{POD}/app.log?follow=true HTTP/1.1\r\nhost: kubelet\r\n\r\n"
    await following.write(head.encode())
    received = b""
    while b"two" not in received:
        received += await following.read()
    return following


async def test_what_cannot_be_recorded_is_not_done(box: Box) -> None:
    box.records.fault = "the disk is full"
    assert await message(box, exec_target(POD, ["touch", "/nowhere"])) == (503, "the disk is full")
    assert [line["event"] for line in box.records.lines] == ["refused"]


# ------------------------------------------------------------------------------------------------------ other settings


async def test_other_settings_hold_for_open_connections_and_end_only_what_they_do_not_offer(tmp_path: Path) -> None:
    logs = [tmp_path / "app.log", tmp_path / "other.log"]
    for log in logs:
        log.write_text("one\ntwo\n")
    async with serving(HostSettings(exec=True, user=ME, files=logs[:1])) as box:
        shell, following = await box.exec("cat", stdin=True), await followed(box)
        assert box.kubelet.apply(HostSettings(exec=True, user=ME, shell="/bin/sh", files=logs)) == 0
        await shell.send(Channel.STDIN, b"still here\n")
        await shell.until(Channel.STDOUT, b"still here\n")
        assert (await box.get(f"/containerLogs/default/{POD}/other.log"))[0] == 200
        assert box.kubelet.apply(HostSettings(files=logs[1:])) == 2
        for duplex in (shell.duplex, following):
            assert (await ended(duplex)).code is Code.NOT_ALLOWED
        assert (await box.get(f"/containerLogs/default/{POD}/app.log"))[0] == 404
        assert "allows no commands" in (await message(box, exec_target(POD, ["id"])))[1]
        await eventually(lambda: len(box.records.of("end")) == 3)
        told = {(line["reason"], line.get("text")) for line in box.records.of("end")}
        cut = {("not_allowed", f"{name} is not offered any more by [host] of this box") for name in ("host", "app.log")}
        assert told >= cut


async def test_what_is_taken_away_before_it_has_begun_does_not_begin(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account may come from a directory that takes its time."""
    asked = asyncio.Event()

    async def slow(_lookup: AccountLookup) -> NoReturn:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def take_away() -> None:
        await asked.wait()
        assert box.kubelet.apply(HostSettings()) == 1

    monkeypatch.setattr(AccountLookup, "account", slow)
    with pytest.raises(StreamReset) as reset:
        async with asyncio.timeout(10):
            await asyncio.gather(box.exec("id"), take_away())
    assert reset.value.code is Code.NOT_ALLOWED
    await eventually(lambda: box.records.lines)
    (line,) = box.records.lines
    assert (line["event"], line["outcome"], line["reason"]) == (
        "refused",
        "not_allowed",
        "host is not offered any more by [host] of this box",
    )


async def ended(duplex: Duplex) -> StreamReset:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            try:
                while await duplex.read():
                    pass
            except StreamReset as reset:
                return reset
    raise AssertionError("it was not reset within a second")


async def test_settings_of_no_use_change_nothing(box: Box) -> None:
    with pytest.raises(SettingsError):
        box.kubelet.apply(HostSettings(units=["*.service"]))
    assert (await box.run("true"))[0] == 0


async def test_a_stopping_kubelet_refuses(box: Box) -> None:
    await box.kubelet.aclose()
    assert await message(box, "/pods") == (503, "the agent is stopping")


async def test_a_connection_that_ends_without_a_request(box: Box) -> None:
    duplex = box.connect()
    await duplex.write_eof()
    await box.serving
    assert await duplex.read() == b""


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n", "names no host"),
        (b"GET /exec/default/box-7/host?command=caf%E9 HTTP/1.1\r\nHost: x\r\n", "query is not UTF-8"),
        (b"GET  / HTTP/1.1\r\n", "illegal request line"),
    ],
)
async def test_what_is_no_request_is_a_status_with_a_code(box: Box, head: bytes, says: str) -> None:
    duplex = box.connect()
    await duplex.write(head + b"\r\n")
    answer = b""
    while data := await duplex.read():
        answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")
    status = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert says in status["message"]
    assert status["details"]["causes"][0]["reason"] == "LL6025"


async def test_a_body_that_is_broken_is_answered(box: Box) -> None:
    duplex = box.connect()
    lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in upgrade_headers())
    target = exec_target(POD, ("true",)).encode()
    await duplex.write(b"GET " + target + b" HTTP/1.1\r\n" + lines + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
    answer = b""
    while data := await duplex.read():
        answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"LL6025" in answer
