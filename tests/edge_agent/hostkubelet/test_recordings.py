"""What commands write is recorded before anybody sees it, in files that players read; else it is not run."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import stat
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.hostkubelet import recordings
from edge_agent.hostkubelet.settings import HostSettings, RecordingSettings
from tests.edge_agent.hostkubelet.conftest import POD, Box, children, serving
from tests.support.channel_client import (
    STDIN,
    STDOUT,
    ChannelClient,
    UpgradeRefused,
    exec_target,
    upgrade_headers,
)
from tests.support.principals import ANN, user
from tests.support.waits import eventually
from tunnel.core.wire.exec_terms import ExecTerms
from tunnel.core.wire.principal import Principal

KIB = 1024


@asynccontextmanager
async def recording(folder: Path, **settings: Any) -> AsyncIterator[Box]:
    """A box whose folder of recordings is made when it is needed."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    made = RecordingSettings(folder=folder / "recordings", **settings)
    async with serving(HostSettings(exec=True, user=user, recording=made)) as box:
        yield box


async def demanded(
    box: Box, *command: str, tty: bool = True, stdin: bool = True, who: Principal = ANN
) -> ChannelClient:
    """A command that the server wants recorded."""
    headers = [*upgrade_headers(), *ExecTerms(record=True).headers()]
    return await ChannelClient.open(
        box.connect(principal=who), exec_target(POD, command, stdin=stdin, tty=tty), headers
    )


def files(folder: Path) -> list[Path]:
    return sorted((folder / "recordings").glob("*.cast"))


def lines(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """A recording by the rules of the format, which nothing of ours reads here."""
    header, *events = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert header["version"] == 2
    assert all(isinstance(header[name], int) and header[name] > 0 for name in ("width", "height", "timestamp"))
    for event in events:
        at_s, kind, data = event
        assert isinstance(at_s, int | float)
        assert kind in ("o", "r")
        assert kind == "o" or re.fullmatch(r"[1-9]\d*x[1-9]\d*", data)
    assert [event[0] for event in events] == sorted(event[0] for event in events)
    return header, events


def written(events: Sequence[Any]) -> str:
    return "".join(data for _, kind, data in events if kind == "o")


async def done(client: ChannelClient) -> None:
    """The end of a command that went well, and of its client."""
    assert await client.finish() == 0
    await client.duplex.aclose()


async def failure(client: ChannelClient) -> str:
    """What the error channel says of a command that the box ended."""
    async with asyncio.timeout(20):
        while not client.closed:
            await client.receive()
    await client.duplex.aclose()
    status = client.status()
    assert (status["status"], status["reason"]) == ("Failure", "InternalError")
    return str(status["message"])


async def test_a_session_on_a_terminal(tmp_path: Path) -> None:
    async with recording(tmp_path) as box:
        client = await demanded(box, "sh")
        await client.resize(100, 30)
        await client.send(STDIN, b"stty -echo; echo re''ady\n")
        await client.until(STDOUT, b"ready")
        await client.send(STDIN, b"read secret; echo \xe2\x82\xac${#secret}\n")
        await client.send(STDIN, b"hunter2\n")
        await client.until(STDOUT, "€7".encode())
        await client.resize(120, 40)
        (path,) = files(tmp_path)
        await eventually(lambda: "120x40" in path.read_text())
        # All that was seen is there already, though the session goes on.
        assert "€7" in written(lines(path)[1])
        await client.send(STDIN, b"exit\n")
        await client.finish()
        await eventually(lambda: box.records.of("end"))
        header, events = lines(path)
        assert (header["width"], header["height"], header["title"]) == (100, 30, "user:ann: sh")
        assert written(events) == client.stdout.decode()
        assert [data for _, kind, data in events if kind == "r"] == ["120x40"]
        assert "hunter2" not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        for record in (*box.records.of("open"), *box.records.of("end")):
            assert record["recording"] == path.stem


async def test_without_a_terminal_both_outputs_are_recorded_as_lines(tmp_path: Path) -> None:
    async with recording(tmp_path) as box:
        script = "echo out; printf '\\342\\202'; sleep 0.1; printf '\\254\\n'; echo err >&2"
        client = await demanded(box, "sh", "-c", script, tty=False)
        assert await client.finish() == 0
        assert client.stdout == "out\n€\n".encode()  # what the client gets is as it was
        (path,) = files(tmp_path)
        text = written(lines(path)[1])
        assert sorted(text.split("\r\n")) == ["", "err", "out", "€"]


@pytest.mark.parametrize(("mode", "recorded"), [("policy", []), ("always", ["echo seen", "cat"]), ("off", [])])
async def test_what_nobody_demands_is_recorded_as_the_box_says(tmp_path: Path, mode: str, recorded: list[str]) -> None:
    async with recording(tmp_path, mode=mode) as box:
        assert (await box.run("echo", "seen"))[0] == 0
        assert (await box.run("cat"))[0] == 0
        assert (await box.run("test", "-d", "/"))[0] == 0  # as kubectl cp does
        assert sorted(lines(path)[0]["command"] for path in files(tmp_path)) == sorted(recorded)


# Or refuse


async def test_a_box_that_records_nothing_does_not_run_it(tmp_path: Path) -> None:
    async with recording(tmp_path, mode="off") as box:
        with pytest.raises(UpgradeRefused, match="demands a recording of this command") as refused:
            await demanded(box, "touch", str(tmp_path / "ran"))
        assert refused.value.status == 403
        assert box.records.of("refused")[0]["code"] == "LL5032"
    assert not (tmp_path / "ran").exists()


async def test_what_cannot_be_written_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "recordings").write_text("no folder")
    async with recording(tmp_path) as box:
        with pytest.raises(UpgradeRefused, match=r"must be recorded, and cannot be: .*file exists") as refused:
            await demanded(box, "touch", str(tmp_path / "ran"))
        assert refused.value.status == 503
    assert not (tmp_path / "ran").exists()


async def test_a_session_ends_when_its_file_is_full_and_what_is_there_can_be_played(tmp_path: Path) -> None:
    async with recording(tmp_path, max_file_bytes=64 * KIB) as box:
        client = await demanded(box, "sh", "-c", "yes 0123456789; echo never")
        message = await failure(client)
        assert message.startswith("LL5032: the command was ended, for it could not be recorded any more: the recording")
        assert "max_file_bytes" in message
        await eventually(lambda: not children(), what="the command is gone")
        (path,) = files(tmp_path)
        assert path.stat().st_size <= 64 * KIB
        text = written(lines(path)[1])
        # Nothing was seen that is not recorded.
        assert text.startswith(client.stdout.decode())
        await eventually(lambda: box.records.of("end"))
        end = box.records.of("end")[0]
        assert end["exit_code"] is None
        assert "max_file_bytes" in end["reason"]


async def test_a_disk_that_fails_or_hangs_ends_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(recordings, "WAIT_S", 0.3)
    real_write = os.write

    def hanging(fd: int, data: bytes) -> int:
        if b"second" in data and b".cast" in bytes(Path(f"/proc/self/fd/{fd}").readlink()):
            go_on.wait(10)
        return real_write(fd, data)

    def full(fd: int, data: bytes) -> int:
        if b"second" in data and b".cast" in bytes(Path(f"/proc/self/fd/{fd}").readlink()):
            real_write(fd, data[:7])
            raise OSError(28, "No space left on device")
        return real_write(fd, data)

    for write, why in ((full, "no space left on device"), (hanging, "does not answer within")):
        go_on.clear()
        async with recording(tmp_path) as box:
            client = await demanded(box, "sh", "-c", "echo first; read line; echo second; sleep 60")
            await client.until(STDOUT, b"first")
            with monkeypatch.context() as patched:
                patched.setattr("edge_agent.hostkubelet.recordings.os.write", write)
                await client.send(STDIN, b"\n")
                assert why in await failure(client)
            go_on.set()
            assert b"second" not in client.stdout
        path = files(tmp_path)[-1]
        assert written(lines(path)[1]).startswith("first")  # no half line


# How much is kept


async def test_the_oldest_go_when_all_together_are_full(tmp_path: Path) -> None:
    async with recording(tmp_path, max_file_bytes=64 * KIB, max_total_bytes=64 * KIB) as box:
        first = await demanded(box, "sh", "-c", "echo first; read line; echo more")
        await first.until(STDOUT, b"first")
        kept = files(tmp_path)[0]
        for _ in range(20):
            await done(await demanded(box, "true", tty=False))
        assert sum(max(path.stat().st_size, 4 * KIB) for path in files(tmp_path)) <= 64 * KIB
        assert kept in files(tmp_path), "one that is being written stays"
        await first.send(STDIN, b"\n")
        await first.finish()
        assert "more" in written(lines(kept)[1])


async def test_nobody_makes_what_others_did_go(tmp_path: Path) -> None:
    limits = {"max_file_bytes": 64 * KIB, "max_total_bytes": 64 * KIB}
    async with recording(tmp_path, **limits) as box:
        await done(await demanded(box, "echo", "evidence", tty=False))
        (evidence,) = files(tmp_path)
        for _ in range(20):
            await done(await demanded(box, "true", tty=False, who=user("mallory")))
        assert evidence in files(tmp_path)
        while len(files(tmp_path)) < 16:
            await done(await demanded(box, "true", tty=False, who=user("mallory")))
        # Of somebody who has none there is none to go.
        with pytest.raises(UpgradeRefused, match="those that are over of user:eve do not make room enough"):
            await demanded(box, "true", tty=False, who=user("eve"))
        await done(await demanded(box, "true", tty=False))
        assert evidence not in files(tmp_path), "one's own oldest goes"


async def test_or_nothing_new_is_run(tmp_path: Path) -> None:
    async with recording(tmp_path, max_file_bytes=64 * KIB, max_total_bytes=64 * KIB, on_full="refuse") as box:
        for _ in range(16):
            await done(await demanded(box, "true", tty=False))
        with pytest.raises(UpgradeRefused, match="max_total_bytes"):
            await demanded(box, "touch", str(tmp_path / "ran"))
        await eventually(lambda: len(files(tmp_path)) == 16, what="the file of the one that was refused to go")
        files(tmp_path)[0].unlink()  # somebody makes room
        await done(await demanded(box, "true", tty=False))
    assert not (tmp_path / "ran").exists()


# Reading them


async def test_they_are_listed_and_read_and_nothing_else_is(tmp_path: Path) -> None:
    async with recording(tmp_path) as box:
        target = f"/recordings/default/{POD}"
        assert json.loads((await box.get(target))[2]) == {"recordings": []}
        for word in ("one", "two"):
            await done(await demanded(box, "echo", word))
        (tmp_path / "recordings" / "notes.txt").write_text("private")
        (tmp_path / "recordings" / "20260101T000000Z-00000000.cast").symlink_to("notes.txt")
        status, _, body = await box.get(target)
        found = json.loads(body)["recordings"]
        assert status == 200
        assert sorted(one["command"] for one in found) == ["echo one", "echo two"]
        for one in found:
            path = tmp_path / "recordings" / f"{one['id']}.cast"
            assert one["bytes"] == path.stat().st_size
            status, headers, body = await box.get(f"{target}?id={one['id']}")
            assert (status, headers.get("content-type")) == (200, "application/x-asciicast")
            assert body == path.read_bytes()
        for number in ("20260101T000000Z-00000001", "../recordings/notes.txt", "notes.txt", "..%2f..%2fetc%2fpasswd"):
            status, _, body = await box.get(f"{target}?id={number}")
            assert status == 404, number
        assert (await box.get(f"{target}?id=20260101T000000Z-00000000"))[0] == 503  # a link is not followed
        assert (await box.get("/recordings/default/other"))[0] == 404
        actions = [(one["action"], one.get("recording")) for one in box.records.of("open")]
        assert ("recordings", found[0]["id"]) in actions
